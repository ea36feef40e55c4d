//! The thread of one remote device: it sleeps until the guest wants something or the back-end says
//! something, and carries out what [`Life`] decides.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{debug, info};

use super::error::VhostUserError;
use super::inflight::Inflight;
use super::life::{Effect, Event, Life};
use super::loudness::Loudness;
use super::mailbox::{Command, Mailbox, Outcome};
use super::memory::Table;
use super::offer::Offer;
use super::outage::Outage;
use super::peer::PeerSource;
use super::policy::Policy;
use super::process::Process;
use super::report::{DeviceEvent, DeviceState, EventKind, PeerIdentity, Vmm};
use super::session::Session;
use super::status::Record;
use super::wire::poll_timeout;
use crate::irq;
use crate::virtio::{Activation, DeviceType, QueuePort};

/// All that the thread of a device works with.
pub(super) struct DeviceThread {
    pub(super) device_type: DeviceType,
    pub(super) table: Table,
    pub(super) offer: Offer,
    pub(super) ports: Arc<[QueuePort]>,
    /// Signalled by the back-end when it gives up on a ring (SET_VRING_ERR).
    pub(super) broken: irq::Event,
    pub(super) mailbox: Arc<Mailbox>,
    /// What others may know.
    pub(super) record: Arc<Record>,
    pub(super) vmm: Arc<dyn Vmm>,
    pub(super) policy: Policy,
    pub(super) life: Life,

    /// Where back-ends come from.
    pub(super) source: Box<dyn PeerSource>,
    /// Who the back-end is, or was.
    pub(super) peer: PeerIdentity,
    pub(super) process: Option<Process>,
    /// One that was given up while it had the rings, and may wake up and work on them.
    pub(super) shunned: Option<Process>,
    pub(super) session: Option<Session>,
    pub(super) connected_at: Option<Instant>,

    /// The rings that were last handed over.
    pub(super) activation: Option<Activation>,
    /// The back-ends' record of what is in flight in them.
    pub(super) inflight: Option<Inflight>,
    /// Whether the log has it that the guest's driver does wrong; it could fill the log.
    pub(super) driver_blamed: bool,

    /// Since the back-end has gone.
    pub(super) outage: Option<Outage>,
    /// When to look for it again.
    pub(super) retry_at: Option<Instant>,
    /// How many back-ends in a row were gone before they did any work.
    pub(super) failures: u32,
    /// Why the last one was refused; it may be met again and again.
    pub(super) refused: Option<String>,
    /// How loud its losses and returns are.
    pub(super) losses: Loudness,
    pub(super) returns: Loudness,
    /// Who waits for a back-end to be attached anew.
    pub(super) reattaching: Option<Sender<Outcome>>,
}

impl DeviceThread {
    /// Serves the device until it is closed.
    pub(super) fn run(mut self) {
        self.step(Event::PeerReady);
        self.tell(EventKind::Negotiated, DeviceState::Connecting, &self.offer.sentence());
        while self.life.state() != DeviceState::Closed {
            self.sleep();
            self.take_orders();
            if self.broken.drain() {
                self.ring_broke();
            }
            self.hear_back_end();
            self.watch_policy();
            self.look_for_back_end();
        }
        self.tell(EventKind::Closed, DeviceState::Closed, "has ended");
    }

    /// Sleeps until there is something to do.
    fn sleep(&self) {
        let event = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![event(self.mailbox.wake().as_fd()), event(self.broken.as_fd())];
        let session = self.session.as_ref();
        fds.extend(session.map(|session| event(session.as_fd())));
        fds.extend(session.and_then(Session::back).map(event));
        let next = self.retry_at.into_iter().chain(self.outage.as_ref().and_then(Outage::until));
        let timeout = next.min().map_or(PollTimeout::NONE, poll_timeout);
        // EINTR and the like are a wake-up for nothing.
        let _ = poll(&mut fds, timeout);
    }

    fn take_orders(&mut self) {
        let orders = self.mailbox.take();
        if orders.close {
            return self.step(Event::Close);
        }
        if orders.reset {
            self.step(Event::Reset);
            self.mailbox.reset_done();
        }
        if let Some(activation) = orders.start {
            self.activation = Some(activation);
            self.step(Event::Start);
        }
        if !orders.config.is_empty() {
            self.write_config(&orders.config, false);
        }
        for command in orders.commands {
            match command {
                Command::Swap(source, outcome) => {
                    // Whoever asked may have gone.
                    let _gone = outcome.send(self.swap(source));
                }
                Command::Reattach(outcome) => self.reattach(outcome),
            }
        }
    }

    /// Takes `event`, carries out what follows, and takes what follows from that.
    pub(super) fn step(&mut self, event: Event) {
        let before = self.life.state();
        let effects = self.life.on(event);
        let after = self.life.state();
        if before != after {
            info!("device {}: {before} → {after}", self.record.id);
            self.record.notes().state = after;
        }
        for effect in effects {
            self.carry_out(*effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::StartRings => self.start_rings(),
            Effect::ResumeRings => self.resume_rings(),
            Effect::StopRings => self.stop_rings(),
            Effect::ResetDone => {
                self.forget_rings();
                for port in &*self.ports {
                    port.call.drain();
                }
                if let Some(events) = self.mailbox.events() {
                    events.reset_done();
                }
            }
            Effect::NeedsReset => {
                self.tell(EventKind::NeedsReset, self.life.state(), "needs a reset");
                self.need_reset();
            }
        }
    }

    /// Lets the rest of the VMM know.
    pub(super) fn tell(&self, kind: EventKind, from: DeviceState, text: &str) {
        let device = self.record.id.clone();
        let r#type = self.device_type.name();
        let text = format!("device {device} ({type}) {text}");
        let (to, peer) = (self.life.state(), Some(self.peer.clone()));
        self.vmm.event(DeviceEvent { device, r#type, kind, from, to, text, peer });
    }

    fn hear_back_end(&mut self) {
        let Some(session) = &mut self.session else { return };
        // The one that woke the thread may not be the one that is there now.
        let (speaks, asks) = session.speaks();
        if asks {
            session.serve_back();
        }
        if speaks {
            let error = session.unasked();
            return self.lose(&error);
        }
        if session.take_config_changed() {
            self.refresh_config(true);
        }
    }

    /// Writes configuration space as the driver did. With `announce`, the driver is told if the
    /// device makes something else of it.
    pub(super) fn write_config(&mut self, runs: &[(usize, Vec<u8>)], announce: bool) {
        let Some(session) = &mut self.session else { return };
        for (offset, data) in runs {
            match session.write_config(*offset, data) {
                Ok(()) => {}
                Err(VhostUserError::Refused { .. }) => {
                    debug!("device {}: configuration write at {offset} refused", self.record.id);
                }
                Err(error) => return self.lose(&error),
            }
        }
        // What the device made of it; a driver that wrote need not be told.
        let Some(session) = &mut self.session else { return };
        match session.read_config(self.offer.config_len) {
            Ok(config) if announce => self.take_config(config, true),
            Ok(config) => self.show_config(config, false),
            Err(error) => self.lose(&error),
        }
    }

    fn refresh_config(&mut self, announce: bool) {
        let Some(session) = &mut self.session else { return };
        match session.read_config(self.offer.config_len) {
            Ok(config) => self.show_config(config, announce),
            Err(error) => self.lose(&error),
        }
    }

    /// Takes the configuration space of a back-end that is new, and announces what differs.
    pub(super) fn take_config(&mut self, config: Vec<u8>, announce: bool) {
        if self.offer.present(config.clone()) != self.mailbox.config() {
            self.show_config(config, announce);
        }
    }

    fn show_config(&self, config: Vec<u8>, announce: bool) {
        let config = self.mailbox.set_config(self.offer.present(config));
        if announce {
            let text = "has changed its configuration";
            self.tell(EventKind::ConfigChanged, self.life.state(), text);
        }
        if let Some(events) = self.mailbox.events() {
            events.config_changed(config, announce);
        }
    }
}
