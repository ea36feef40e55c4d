//! The driver's rings: handing them to a back-end, to another one after it, and taking them back.

use std::thread;
use std::time::Duration;

use tracing::{debug, warn};

use super::error::VhostUserError;
use super::handover::Handover;
use super::life::Event;
use super::policy::OnDisconnect;
use super::queue::Queue;
use super::replay::{self, Unproven};
use super::report::{DeviceState, EventKind};
use super::session::Session;
use super::thread::DeviceThread;
use crate::virtio::{Activation, Ring};

/// A driver that was adding buffers when its rings were read has done so a moment later.
const DRIVER_MOMENT: Duration = Duration::from_millis(1);
const LOOKS: usize = 5;

impl DeviceThread {
    /// Hands fresh rings to the back-end.
    pub(super) fn start_rings(&mut self) {
        let Some(activation) = self.activation.clone() else { return };
        if let Err(error) = activation.rings.iter().try_for_each(|ring| self.table.check(ring)) {
            // The guest's mistake, not the back-end's: nothing was started, so the device is as
            // good as lost until the driver resets it.
            self.blame_driver(&error.sentence());
            self.activation = None;
            return self.need_reset();
        }
        self.inflight = None;
        let bases = vec![0; activation.rings.len()];
        self.hand_over(&activation, &bases);
        if self.life.state() == DeviceState::Active {
            let text = format!("is started, with {} queues", activation.rings.len());
            self.tell(EventKind::Active, DeviceState::Negotiated, &text);
        }
    }

    /// Hands the rings to a back-end that has taken the place of a lost one.
    pub(super) fn resume_rings(&mut self) {
        let Some(activation) = self.activation.clone() else { return };
        let tracked = self.session.as_ref().is_some_and(Session::tracks_inflight);
        match self.bases(&activation, tracked) {
            Ok(bases) => {
                self.hand_over(&activation, &bases);
                self.call_guest();
            }
            Err((queue, unproven)) => self.give_rings_up(queue, &unproven),
        }
    }

    /// Where a successor goes on in each ring: where the guest has the device's answers up to. With
    /// a record of what is in flight that is all it needs; without one it has to be proved that
    /// what comes after is exactly what is outstanding.
    pub(super) fn bases(
        &self,
        activation: &Activation,
        tracked: bool,
    ) -> Result<Vec<u16>, (u16, Unproven)> {
        let recorded = tracked && self.inflight.is_some();
        let base = |ring: &Ring| {
            let queue = Queue::new(&self.record.memory, ring);
            if recorded && let Some(used_idx) = queue.used_idx() {
                return Ok(used_idx);
            }
            self.prove(&queue).map_err(|unproven| (ring.index, unproven))
        };
        activation.rings.iter().map(base).collect()
    }

    /// The index up to which everything was done, and after which nothing was.
    fn prove(&self, queue: &Queue<'_>) -> Result<u16, Unproven> {
        let mut result = Err(Unproven::Unreadable);
        for look in 0..LOOKS {
            if look > 0 {
                thread::sleep(DRIVER_MOMENT);
            }
            let Some(contents) = queue.contents() else { return Err(Unproven::Unreadable) };
            result =
                replay::prove(&contents, self.device_type.in_order()).map(|()| contents.used_idx);
            // While the driver adds buffers, descriptors are ahead of the available ring.
            if !matches!(result, Err(Unproven::Ambiguous { .. })) {
                break;
            }
        }
        result
    }

    fn hand_over(&mut self, activation: &Activation, bases: &[u16]) {
        let Some(mut session) = self.session.take() else { return };
        let started = self.hand_over_to(&mut session, activation, bases);
        let protocol = session.protocol;
        self.session = Some(session);
        if let Err(error) = started {
            return self.lose(&error);
        }
        let mut notes = self.record.notes();
        notes.activation = Some(activation.clone());
        notes.protocol = protocol;
    }

    /// Hands the rings to `session`, which need not be the device's.
    pub(super) fn hand_over_to(
        &mut self,
        session: &mut Session,
        activation: &Activation,
        bases: &[u16],
    ) -> Result<(), VhostUserError> {
        let handover = Handover {
            activation,
            bases,
            table: &self.table,
            ports: &self.ports,
            broken: &self.broken,
            queues: (self.offer.queues, self.offer.queue_size),
        };
        session.start(&handover, &mut self.inflight)?;
        self.record.notes().inflight = self.inflight.is_some();
        Ok(())
    }

    /// What the last back-end used just before its end may lack its interrupt. One too many is
    /// harmless.
    pub(super) fn call_guest(&self) {
        let activation = self.activation.iter();
        for ring in activation.flat_map(|activation| &activation.rings) {
            if let Some(port) = self.ports.get(usize::from(ring.index)) {
                port.call.signal();
            }
        }
    }

    /// Nobody knows what the lost back-end left undone, so no other can go on.
    fn give_rings_up(&mut self, queue: u16, unproven: &Unproven) {
        let stage = self.outage.as_ref().map_or(0, super::outage::Outage::stage);
        let text = format!(
            "can't go on where its lost back-end was: queue {queue}: {unproven}; a back-end that \
             keeps a record of what it has in flight would know (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)"
        );
        self.record.notes().last_error = Some(text.clone());
        match self.policy.beyond_waiting(stage) {
            OnDisconnect::Stop => self.stop_machine(&text),
            _ => warn!(
                "device {} ({}) {text}; it needs a reset",
                self.record.id,
                self.device_type.name()
            ),
        }
        self.tell(EventKind::NeedsReset, self.life.state(), &text);
        self.step(Event::GiveUp);
    }

    /// Takes the rings back from the back-end for good.
    pub(super) fn stop_rings(&mut self) {
        let Some(activation) = self.activation.take() else { return };
        let Some(session) = &mut self.session else { return };
        if let Err(error) = session.stop(&activation.rings) {
            self.lose(&error);
        }
    }

    /// Forgets the rings, which the driver has reset.
    pub(super) fn forget_rings(&mut self) {
        self.activation = None;
        self.inflight = None;
        let mut notes = self.record.notes();
        notes.activation = None;
        notes.inflight = false;
    }

    pub(super) fn ring_broke(&mut self) {
        if self.life.state() == DeviceState::Active {
            self.blame_driver("the back-end gave up on a ring");
            self.need_reset();
        }
    }

    pub(super) fn need_reset(&self) {
        if let Some(events) = self.mailbox.events() {
            events.needs_reset();
        }
    }

    fn blame_driver(&mut self, what: &str) {
        let id = &self.record.id;
        if std::mem::replace(&mut self.driver_blamed, true) {
            debug!("device {id}: the guest's driver failed again: {what}");
        } else {
            warn!("device {id}: the guest's driver failed, the device needs a reset: {what}");
            let text = format!("needs a reset: {what}");
            self.tell(EventKind::NeedsReset, self.life.state(), &text);
        }
    }
}
