//! The thread of one remote device: it sleeps until the guest wants something or the back-end says
//! something, and carries out what [`Life`] decides.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tap::Pipe;
use tracing::{debug, info, warn};

use super::error::VhostUserError;
use super::life::{Effect, Event, Life, State};
use super::mailbox::Mailbox;
use super::memory::Table;
use super::offer::Offer;
use super::peer::{Attempt, PeerSource};
use super::session::Session;
use super::wire::poll_timeout;
use crate::irq;
use crate::virtio::{Activation, DeviceType, QueuePort};

/// Between two attempts to reach a back-end that was lost.
const RECONNECT: Duration = Duration::from_millis(500);

/// All that the thread of a device works with.
pub(super) struct DeviceThread {
    pub(super) id: String,
    pub(super) device_type: DeviceType,
    /// How to call the peer in messages.
    pub(super) peer: String,
    /// Where a lost back-end can be found again.
    pub(super) source: Box<dyn PeerSource>,
    pub(super) table: Table,
    pub(super) offer: Offer,
    pub(super) ports: Arc<[QueuePort]>,
    /// Signalled by the back-end when it gives up on a ring (SET_VRING_ERR).
    pub(super) broken: irq::Event,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) session: Option<Session>,
    /// The rings that were last handed over.
    pub(super) activation: Option<Activation>,
    pub(super) life: Life,
    /// When to look for a lost back-end again.
    pub(super) retry_at: Option<Instant>,
    /// Whether the log has it that the guest's driver does wrong; it could fill the log.
    pub(super) driver_blamed: bool,
}

/// What woke the thread.
#[derive(Default)]
struct Woken {
    peer: bool,
    back: bool,
    broken: bool,
}

impl DeviceThread {
    /// Serves the device until it is closed.
    pub(super) fn run(mut self) {
        self.step(Event::PeerReady);
        while self.life.state() != State::Closed {
            let woken = self.sleep();
            self.take_orders();
            if woken.broken && self.broken.drain() {
                self.ring_broke();
            }
            self.hear_back_end(&woken);
            self.look_for_back_end();
        }
    }

    /// Sleeps until there is something to do.
    fn sleep(&self) -> Woken {
        let event = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![event(self.mailbox.wake().as_fd()), event(self.broken.as_fd())];
        let session = self.session.as_ref();
        fds.extend(session.map(|session| event(session.as_fd())));
        fds.extend(session.and_then(Session::back).map(event));
        let timeout = self.retry_at.map_or(PollTimeout::NONE, poll_timeout);
        // EINTR and the like are a wake-up for nothing.
        let _ = poll(&mut fds, timeout);
        let mut ready = fds.iter().skip(1).map(|fd| fd.any() == Some(true));
        Woken {
            broken: ready.next() == Some(true),
            peer: ready.next() == Some(true),
            back: ready.next() == Some(true),
        }
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
            self.write_config(&orders.config);
        }
    }

    /// Takes `event`, carries out what follows, and takes what follows from that.
    fn step(&mut self, event: Event) {
        let before = self.life.state();
        let effects = self.life.on(event);
        let after = self.life.state();
        if before != after {
            info!("device {}: {before:?} → {after:?}", self.id);
        }
        for effect in effects {
            self.carry_out(*effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::StartRings => self.start_rings(),
            Effect::StopRings => self.stop_rings(),
            Effect::ResetDone => {
                for port in &*self.ports {
                    port.call.drain();
                }
                if let Some(events) = self.mailbox.events() {
                    events.reset_done();
                }
            }
            Effect::NeedsReset => self.need_reset(),
        }
    }

    fn need_reset(&self) {
        if let Some(events) = self.mailbox.events() {
            events.needs_reset();
        }
    }

    fn start_rings(&mut self) {
        let Some(activation) = self.activation.clone() else { return };
        if let Err(error) = activation.rings.iter().try_for_each(|ring| self.table.check(ring)) {
            // The guest's mistake, not the back-end's: nothing was started, so the device is as
            // good as lost until the driver resets it.
            self.blame_driver(&error.sentence());
            self.activation = None;
            return self.need_reset();
        }
        let Some(session) = &mut self.session else { return };
        if let Err(error) = session.start(&activation, &self.table, &self.ports, &self.broken) {
            self.lose(&error);
        }
    }

    fn stop_rings(&mut self) {
        let Some(activation) = self.activation.take() else { return };
        let Some(session) = &mut self.session else { return };
        if let Err(error) = session.stop(&activation.rings) {
            self.lose(&error);
        }
    }

    /// The back-end is gone, or can't be trusted any more, and the connection with it.
    fn lose(&mut self, error: &VhostUserError) {
        let Self { id, peer, .. } = self;
        let device_type = self.device_type.name();
        let outlook = "it is looked for, and the device works again once the guest resets it";
        warn!(
            "device {id} ({device_type}) lost its back-end at {peer}: {}; {outlook}; the guest and \
             its other devices go on",
            error.sentence()
        );
        // Closing the connection is what tells a hung back-end to let go of the rings.
        self.session = None;
        self.retry_at = Some(Instant::now() + RECONNECT);
        self.step(Event::PeerLost);
    }

    fn ring_broke(&mut self) {
        if self.life.state() == State::Active {
            self.blame_driver("the back-end gave up on a ring");
            self.need_reset();
        }
    }

    fn blame_driver(&mut self, what: &str) {
        let Self { id, .. } = self;
        if std::mem::replace(&mut self.driver_blamed, true) {
            debug!("device {id}: the guest's driver failed again: {what}");
        } else {
            warn!("device {id}: the guest's driver failed, the device needs a reset: {what}");
        }
    }

    fn hear_back_end(&mut self, woken: &Woken) {
        let Some(session) = &mut self.session else { return };
        if woken.back {
            session.serve_back();
        }
        if woken.peer {
            let error = session.unasked();
            return self.lose(&error);
        }
        if session.take_config_changed() {
            self.refresh_config(true);
        }
    }

    fn write_config(&mut self, runs: &[(usize, Vec<u8>)]) {
        let Some(session) = &mut self.session else { return };
        for (offset, data) in runs {
            match session.write_config(*offset, data) {
                Ok(()) => {}
                Err(VhostUserError::Refused { .. }) => {
                    debug!("device {}: configuration write at {offset} refused", self.id);
                }
                Err(error) => return self.lose(&error),
            }
        }
        // What the device made of it; a driver that wrote need not be told.
        self.refresh_config(false);
    }

    fn refresh_config(&mut self, announce: bool) {
        let Some(session) = &mut self.session else { return };
        match session.read_config(self.offer.config_len) {
            Ok(config) => {
                let config = self.mailbox.set_config(self.offer.present(config));
                if let Some(events) = self.mailbox.events() {
                    events.config_changed(config, announce);
                }
            }
            Err(error) => self.lose(&error),
        }
    }

    /// Looks for a lost back-end when it is time to.
    fn look_for_back_end(&mut self) {
        if self.retry_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = Some(Instant::now() + RECONNECT);
        match self.reconnect() {
            Ok(Some((session, config))) => {
                warn!("device {}: a back-end is back at {}", self.id, self.peer);
                self.retry_at = None;
                self.session = Some(session);
                let config = self.mailbox.set_config(self.offer.present(config));
                if let Some(events) = self.mailbox.events() {
                    events.config_changed(config, true);
                }
                self.step(Event::PeerReady);
            }
            Ok(None) => {}
            Err(error) => {
                warn!(
                    "device {}: not taking back-end at {}: {}",
                    self.id,
                    self.peer,
                    error.sentence()
                );
                self.retry_at = Some(Instant::now() + RECONNECT * 10);
            }
        }
    }

    /// One attempt to get a fitting back-end again; none if nobody is there.
    fn reconnect(&mut self) -> Result<Option<(Session, Vec<u8>)>, VhostUserError> {
        let stream = match self.source.connect(&self.id)? {
            Attempt::Connected(stream) => stream,
            Attempt::NotYet { .. } | Attempt::GivenUp { .. } => return Ok(None),
        };
        let (session, found) = Session::open(&self.id, stream, self.device_type)?;
        self.offer.check_return(&found)?;
        (session, found.config.unwrap_or_default()).pipe(Some).pipe(Ok)
    }
}
