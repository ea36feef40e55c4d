//! All devices of a machine: their processes, where they are ours, and our ends of their sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::error::VmError;
use super::events::{Event, Events};
use crate::child::{Program, Seat, Starter, Supervisor};
use crate::config::{BackendConfig, DeviceConfig, VmConfig, nearest};
use crate::control_line::ControlLine;
use crate::memory::GuestRam;
use crate::vhost_user::{DeviceSpec, PeerSource, RemoteDevice, SocketPeer, VhostUserError, Vmm};
use crate::virtio::DeviceType;

/// Devices in the order of their PCI slots.
pub(super) type Remotes = Vec<Arc<RemoteDevice>>;

/// Lines to the processes of devices, by the devices' names; not every device has one.
pub(super) type Lines = BTreeMap<String, Arc<ControlLine>>;

/// How long after a failed handshake a dying backend may still be found alive.
const DYING: Duration = Duration::from_millis(500);

/// A machine's devices, and those of their processes that are ours.
#[derive(Default)]
pub(super) struct Devices {
    remotes: Remotes,
    children: Vec<(String, Seat)>,
    lines: Lines,
    /// Children die with it.
    starter: Option<Starter>,
}

impl Devices {
    /// Starts our backends and connects to all. `None` when a signal came before they were there.
    pub(super) fn start(
        config: &VmConfig,
        ram: &Arc<GuestRam>,
        events: &Events,
        vmm: Arc<dyn Vmm>,
    ) -> Result<Option<Self>, VmError> {
        let mut devices = Self::default();
        let mut specs = Vec::new();
        for device in &config.devices {
            specs.push(devices.spec(device, config)?);
        }
        // A backend may be long in coming, and signals are to be heard meanwhile.
        let (sender, ram) = (events.sender(), Arc::clone(ram));
        let connect = move || {
            let connect = |spec| RemoteDevice::connect(spec, ram.memory(), &vmm);
            let result = specs.into_iter().map(connect);
            let result = result.collect::<Result<_, _>>().map_err(VmError::from);
            let _ended = sender.send(Event::Connected(Box::new(result)));
        };
        thread::Builder::new()
            .name("connect".to_owned())
            .spawn(connect)
            .map_err(|source| VmError::System { doing: "start a thread", source })?;
        let result = match events.wait_for_devices(|| devices.user_left()) {
            Some(Ok(remotes)) => {
                devices.remotes = remotes;
                return Ok(Some(devices));
            }
            Some(Err(error)) => Err(devices.blame(error)),
            None => Ok(None),
        };
        // Those that were there already end by themselves rather than with us: one may have the
        // terminal.
        devices.stop();
        result
    }

    /// The device as the front-end takes it; starts its process if it is ours.
    fn spec(&mut self, device: &DeviceConfig, config: &VmConfig) -> Result<DeviceSpec, VmError> {
        let id = device.id.clone();
        let (name, queues, queue_size) = match &device.backend {
            BackendConfig::Disk(_) => ("blk", None, None),
            BackendConfig::Net(_) => ("net", None, None),
            BackendConfig::Console(_) => ("console", None, None),
            BackendConfig::Socket(socket) => {
                (socket.r#type.as_str(), socket.queues, socket.queue_size)
            }
        };
        let device_type = DeviceType::by_name(name).ok_or_else(|| {
            let names: Vec<_> = DeviceType::names().collect();
            VmError::UnknownType { name: name.to_owned(), advice: nearest(name, &names) }
        })?;
        let peer: Box<dyn PeerSource> = match &device.backend {
            BackendConfig::Socket(socket) => {
                let line = socket.control.clone().map(ControlLine::to_socket).map(Arc::new);
                self.lines.extend(line.map(|line| (id.clone(), line)));
                Box::new(SocketPeer::new(socket.socket.clone()))
            }
            ours => Box::new(self.supervise(&id, ours, config)?),
        };
        Ok(DeviceSpec {
            id,
            device_type,
            peer,
            policy: device.on_disconnect.clone(),
            queues,
            queue_size,
            vcpus: config.cpus.into(),
            connect_timeout: config.connect_timeout,
        })
    }

    /// Starts the process that serves `backend`, and sees to it from now on.
    fn supervise(
        &mut self,
        id: &str,
        backend: &BackendConfig,
        config: &VmConfig,
    ) -> Result<Supervisor, VmError> {
        let failed = |source| VmError::Child { id: id.to_owned(), source };
        let starter = match &self.starter {
            Some(starter) => starter.clone(),
            None => Starter::new()
                .map_err(|source| VmError::System { doing: "start a thread", source })?,
        };
        self.starter = Some(starter.clone());
        let program = Program::of(backend, config.cpus, config.control.as_deref(), id);
        let program = program.map_err(failed)?;
        let line = ControlLine::to_child(program.name(), Program::settings(backend));
        let line = Arc::new(line);
        self.lines.insert(id.to_owned(), Arc::clone(&line));
        let supervisor = Supervisor::start(program, starter, id, line).map_err(failed)?;
        self.children.push((id.to_owned(), supervisor.seat()));
        Ok(supervisor)
    }

    /// The lines to their processes.
    pub(super) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// The devices, in the order of their slots.
    pub(super) fn remotes(&self) -> &[Arc<RemoteDevice>] {
        &self.remotes
    }

    /// Takes every ring back from the backends, as a reset of the machine does.
    pub(super) fn quiesce(&self) {
        self.for_each(RemoteDevice::quiesce);
    }

    /// Lets every backend go, and ends those that are ours.
    pub(super) fn stop(&mut self) {
        self.for_each(RemoteDevice::shutdown);
        thread::scope(|scope| {
            for (_id, seat) in self.children.drain(..) {
                scope.spawn(move || seat.clear());
            }
        });
    }

    /// Notes which of our backends have ended: how long one has lived says how soon it is started
    /// again. True when one did because the user at its terminal left.
    pub(super) fn user_left(&self) -> bool {
        let left = |(_, seat): &&(String, Seat)| {
            seat.look();
            seat.user_left()
        };
        // Every one is looked at.
        self.children.iter().filter(left).count() > 0
    }

    /// At the same time, so that one hung backend costs its own deadline and no other's.
    fn for_each(&self, act: fn(&RemoteDevice)) {
        thread::scope(|scope| {
            for remote in &self.remotes {
                scope.spawn(move || act(remote));
            }
        });
    }

    /// The cause of a failed start: a backend of ours that ended has said on stderr why, which is
    /// more than that its socket was closed.
    fn blame(&self, error: VmError) -> VmError {
        let VmError::VhostUser(VhostUserError::Device { id: failed, .. }) = &error else {
            return error;
        };
        let child = self.children.iter().find(|(id, _)| id == failed);
        match child.and_then(|(_, seat)| seat.ended(DYING)) {
            Some((program, status)) if !status.success() => {
                VmError::ChildEnded { id: failed.clone(), program, status }
            }
            _ => error,
        }
    }
}
