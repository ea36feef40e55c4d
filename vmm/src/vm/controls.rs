//! A machine as others reach it: its devices, when they lose their backends, and whoever is at the
//! control socket. Tells all of them what happens.
//!
//! What has to be done by the main thread is left there as an event.

use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;
use tap::TapFallible;

use super::brake::{Brake, Change, Holder};
use super::consoles::{consoles, is_unnamed, name_terminals};
use super::devices::Lines;
use super::error::sentence;
use super::events::Event;
use super::metrics;
use crate::config::VmConfig;
use crate::control::{self, Action, ConsoleInfo, EventLog, Info, MachineState, Outcome, Refusal};
use crate::control_line::{ControlLine, LineError};
use crate::vcpu::Vcpus;
use crate::vhost_user::{DeviceEvent, DeviceStatus, RemoteDevice, VhostUserError, Vmm};
use crate::virtio::VirtioDevice;

/// How long vCPUs may take to stop before whoever asked for it is told that they don't.
const PAUSE_PATIENCE: Duration = Duration::from_secs(5);

/// Something that happened to the machine as a whole.
#[derive(Serialize)]
struct MachineEvent<'a> {
    kind: &'static str,
    text: &'a str,
}

/// What others reach of a machine.
pub(super) struct Controls {
    cpus: u8,
    memory_bytes: u64,
    kernel: PathBuf,
    consoles: Vec<ConsoleInfo>,
    since: Instant,
    brake: Brake,
    log: Arc<EventLog>,
    main: Sender<Event>,
    life: Mutex<Life>,
}

#[derive(Default)]
struct Life {
    boots: u64,
    ended: bool,
    /// Theirs is this; not the other way around.
    devices: Vec<Weak<RemoteDevice>>,
    /// To their processes.
    lines: Lines,
}

impl Controls {
    /// Those of the machine that `config` describes, whose main thread listens to `main`.
    pub(super) fn new(config: &VmConfig, log: Arc<EventLog>, main: Sender<Event>) -> Self {
        Self {
            cpus: config.cpus,
            memory_bytes: config.memory.size.0,
            kernel: config.kernel.clone(),
            consoles: consoles(config),
            since: Instant::now(),
            brake: Brake::new(),
            log,
            main,
            life: Mutex::default(),
        }
    }

    /// The devices are there.
    pub(super) fn connected(&self, remotes: &[Arc<RemoteDevice>], lines: &Lines) {
        let mut life = self.life();
        life.devices = remotes.iter().map(Arc::downgrade).collect();
        life.lines = lines.clone();
    }

    /// The guest starts.
    pub(super) fn booted(&self, vcpus: &Arc<Vcpus>) {
        self.brake.attach(vcpus);
        self.life().boots += 1;
        self.tell("booted", "the guest starts");
    }

    /// The guest runs no more: it has reset itself, or the machine is over.
    pub(super) fn halted(&self) {
        self.brake.detach();
    }

    /// The guest has reset itself, and will start again.
    pub(super) fn reset(&self) {
        self.tell("reset", "the guest reset itself");
    }

    /// The machine is over, and why.
    pub(super) fn ended(&self, why: &str) {
        self.life().ended = true;
        self.tell("ended", why);
    }

    /// The power button was pressed.
    pub(super) fn pressed(&self, by: &str) {
        self.tell("power-button", &format!("the guest's power button was pressed by {by}"));
    }

    fn tell(&self, kind: &'static str, text: &str) {
        self.log.publish(&MachineEvent { kind, text });
    }

    fn tell_change(&self, change: &Change, holder: &Holder) {
        match change {
            Change::Stopped => self.tell("paused", &format!("{holder} stops the vCPUs")),
            Change::GoesOn => self.tell("resumed", &format!("{holder} lets the vCPUs go on")),
            Change::None => {}
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MachineState {
        let life = self.life();
        match (life.ended, life.boots) {
            (true, _) => MachineState::Ended,
            (false, 0) => MachineState::Starting,
            (false, _) if self.brake.holders().is_empty() => MachineState::Running,
            (false, _) => MachineState::Paused,
        }
    }

    /// The machine's consoles, with the names of pseudo-terminals that only their processes know.
    fn consoles(&self) -> Vec<ConsoleInfo> {
        let lines = self.life().lines.clone();
        let ask = |id: &str| {
            let answer = lines.get(id)?.terminals();
            answer.tap_err(|error| tracing::debug!("device {id}: {}", sentence(error))).ok()
        };
        name_terminals(&self.consoles, ask)
    }

    fn remotes(&self) -> Vec<Arc<RemoteDevice>> {
        self.life().devices.iter().filter_map(Weak::upgrade).collect()
    }

    fn remote(&self, id: &str) -> Result<Arc<RemoteDevice>, Refusal> {
        let remotes = self.remotes();
        match remotes.iter().find(|remote| remote.id() == id) {
            Some(remote) => Ok(Arc::clone(remote)),
            None => Err(Refusal::no_device(id, remotes.iter().map(|remote| remote.id()))),
        }
    }

    /// The line to the process of `id`.
    fn line(&self, id: &str) -> Result<Arc<ControlLine>, Refusal> {
        // One that does not exist is a mistake of another kind.
        let remote = self.remote(id)?;
        let line = self.life().lines.get(id).cloned();
        line.ok_or_else(|| {
            Refusal::Conflict(format!(
                "device {id}: {} has no control socket that atoll knows; name it with control=PATH \
                 in --device",
                remote.status().peer.name
            ))
        })
    }

    /// Does something over the line to the process of `id`.
    fn over_line<T>(
        &self,
        id: &str,
        ask: impl FnOnce(&ControlLine) -> Result<T, LineError>,
    ) -> Result<T, Refusal> {
        ask(self.line(id)?.as_ref()).map_err(|error| {
            let why = format!("device {id}: {}", sentence(&error));
            if matches!(error, LineError::Wrong(_)) {
                Refusal::Wrong(why)
            } else {
                Refusal::Conflict(why)
            }
        })
    }

    fn pause(&self) -> Result<(), Refusal> {
        let (change, pausing) = self.brake.hold(Holder::User);
        self.tell_change(&change, &Holder::User);
        if pausing.is_none_or(|pausing| pausing.wait(PAUSE_PATIENCE)) {
            return Ok(());
        }
        let seconds = PAUSE_PATIENCE.as_secs();
        Err(Refusal::Conflict(format!(
            "not every vCPU has stopped within {seconds} s; each will as soon as what it waits for \
             lets it"
        )))
    }
}

impl Vmm for Controls {
    fn pause(&self, id: &str) {
        let holder = Holder::Device(id.to_owned());
        let (change, _need_not_wait) = self.brake.hold(holder.clone());
        self.tell_change(&change, &holder);
    }

    fn resume(&self, id: &str) {
        let holder = Holder::Device(id.to_owned());
        let change = self.brake.release(&holder);
        self.tell_change(&change, &holder);
    }

    fn stop(&self, _id: &str, why: &str) {
        // The sentence names the device. Fails only when the main thread is past caring.
        let _ended = self.main.send(Event::DeviceStop(why.to_owned()));
    }

    fn event(&self, event: DeviceEvent) {
        self.log.publish(&event);
    }
}

impl control::Machine for Controls {
    fn info(&self) -> Info {
        let uptime = u64::try_from(self.since.elapsed().as_millis());
        let state = self.state();
        let life = self.life();
        Info {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            state,
            paused_by: self.brake.holders().iter().map(ToString::to_string).collect(),
            cpus: self.cpus,
            memory_bytes: self.memory_bytes,
            kernel: self.kernel.clone(),
            boots: life.boots,
            uptime_ms: uptime.unwrap_or(u64::MAX),
            devices: life.devices.len(),
            consoles: self.consoles.clone(),
        }
    }

    fn is_known_elsewhere(&self) -> bool {
        self.consoles.iter().any(is_unnamed)
    }

    fn devices(&self) -> Vec<DeviceStatus> {
        self.remotes().iter().map(|remote| remote.status()).collect()
    }

    fn act(&self, action: Action) -> Result<Outcome, Refusal> {
        match (self.state(), &action) {
            (MachineState::Ended, action) if !matches!(action, Action::Metrics | Action::Info) => {
                return Err(Refusal::Conflict("the machine has ended".to_owned()));
            }
            (MachineState::Starting, Action::PowerButton) => {
                let why = "the machine is still starting; its guest can't be asked to power off";
                return Err(Refusal::Conflict(why.to_owned()));
            }
            _ => {}
        }
        let failed = |about: String| {
            move |error: VhostUserError| Refusal::Conflict(format!("{about}: {}", sentence(&error)))
        };
        match action {
            Action::Info => {
                let info = Info { consoles: self.consoles(), ..self.info() };
                return Ok(Outcome::Now(json!(info)));
            }
            Action::Pause => self.pause()?,
            Action::Resume => {
                let change = self.brake.release(&Holder::User);
                self.tell_change(&change, &Holder::User);
            }
            Action::PowerButton => {
                let _ended = self.main.send(Event::PowerButton);
            }
            Action::Swap { id, socket } => {
                let about = format!("device {id}: socket {}", socket.display());
                self.remote(&id)?.swap(socket).map_err(failed(about))?;
            }
            Action::Reattach { id } => {
                self.remote(&id)?.reattach().map_err(failed(format!("device {id}")))?;
            }
            Action::Limits { id } => {
                return self
                    .over_line(&id, ControlLine::limits)
                    .map(|all| Outcome::Now(json!(all)));
            }
            Action::Limit { id, change } => {
                let changed = self.over_line(&id, |line| line.limit(&change));
                return changed.map(|all| Outcome::Now(json!(all)));
            }
            Action::Resize { id, size } => {
                let resized = self.over_line(&id, |line| line.resize(size));
                return resized.map(|size| Outcome::Now(json!({ "size": size })));
            }
            Action::Link { id, up } => {
                let turned = self.over_line(&id, |line| line.link(up));
                return turned.map(|()| Outcome::Now(json!({ "up": up })));
            }
            Action::Metrics => {
                let lines = self.life().lines.clone();
                return Ok(Outcome::Metrics(metrics::text(&self.info(), &self.devices(), &lines)));
            }
        }
        Ok(Outcome::Done)
    }
}
