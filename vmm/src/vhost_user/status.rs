//! How a device is, for whoever asks: what its thread noted last, and what the rings' indices say
//! now. Asking waits for nobody and leaves the data path alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::GuestMemoryMmap;

use super::queue::Queue;
use super::report::{DeviceState, DeviceStatus, Owes, PeerIdentity, QueueStatus};
use crate::virtio::{Activation, DeviceType, QueuePort, Ring, features};

/// What the thread of a device notes.
#[derive(Debug)]
pub(super) struct Notes {
    pub(super) state: DeviceState,
    pub(super) peer: PeerIdentity,
    pub(super) protocol: Protocol,
    /// Whether a record of what is in flight is kept.
    pub(super) inflight: bool,
    pub(super) lost_since: Option<Instant>,
    pub(super) recoveries: u64,
    pub(super) last_error: Option<String>,
    /// What the driver started.
    pub(super) activation: Option<Activation>,
}

/// How a queue was when it was last looked at.
#[derive(Clone, Copy)]
struct Look {
    used_idx: u16,
    /// Since when its oldest buffer has been seen outstanding.
    since: Option<Instant>,
}

/// One device's notes, and all that is needed to read its queues.
pub(super) struct Record {
    pub(super) id: String,
    pub(super) device_type: DeviceType,
    pub(super) policy: String,
    pub(super) memory: GuestMemoryMmap,
    pub(super) ports: Arc<[QueuePort]>,
    notes: Mutex<Notes>,
    /// The last look at each queue, by its index.
    looks: Mutex<Vec<Option<Look>>>,
}

impl Record {
    pub(super) fn new(
        id: String,
        device_type: DeviceType,
        policy: String,
        memory: GuestMemoryMmap,
        ports: Arc<[QueuePort]>,
    ) -> Self {
        let notes = Notes {
            state: DeviceState::Connecting,
            peer: PeerIdentity::default(),
            protocol: Protocol::empty(),
            inflight: false,
            lost_since: None,
            recoveries: 0,
            last_error: None,
            activation: None,
        };
        let looks = Mutex::new(vec![None; ports.len()]);
        Self { id, device_type, policy, memory, ports, notes: Mutex::new(notes), looks }
    }

    /// The notes, to be read or changed at once.
    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the device is now.
    pub(super) fn status(&self) -> DeviceStatus {
        let notes = self.notes();
        let activation = notes.activation.clone();
        let accepted = activation.as_ref().map_or(0, |activation| activation.features);
        let mut status = DeviceStatus {
            id: self.id.clone(),
            r#type: self.device_type.name(),
            state: notes.state,
            peer: notes.peer.clone(),
            policy: self.policy.clone(),
            features: (0..u64::BITS)
                .filter(|bit| accepted & (1 << bit) != 0)
                .map(|bit| features::name(self.device_type, bit))
                .collect(),
            protocol_features: notes.protocol.iter_names().map(|(name, _)| name.into()).collect(),
            inflight: notes.inflight,
            lost_for_ms: notes.lost_since.map(|since| millis(since.elapsed())),
            recoveries: notes.recoveries,
            last_error: notes.last_error.clone(),
            queues: Vec::new(),
        };
        drop(notes);
        if let Some(activation) = activation {
            let event_idx = activation.features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
            let queues = activation.rings.iter();
            status.queues = queues.filter_map(|ring| self.queue(ring, event_idx)).collect();
        }
        status
    }

    /// How one queue is, by its indices.
    fn queue(&self, ring: &Ring, event_idx: bool) -> Option<QueueStatus> {
        let queue = Queue::new(&self.memory, ring);
        // In this order depth is never more than it was.
        let used_idx = queue.used_idx()?;
        let avail_idx = queue.avail_idx()?;
        let depth = avail_idx.wrapping_sub(used_idx);
        let untaken = queue
            .used_event()
            .filter(|_| event_idx)
            .map_or(0, |event| used_idx.wrapping_sub(event))
            // An index that the driver has not set for long is no statement.
            .clamp(0, ring.size);
        let port = self.ports.get(usize::from(ring.index))?;
        let call_waits = port.call.is_signalled();
        let owes = match (depth, self.device_type.lies_ready(ring.index)) {
            _ if call_waits => Owes::Interrupt,
            (0, true) => Owes::Guest,
            (0, false) if untaken > 0 => Owes::Guest,
            (0, false) => Owes::Nobody,
            (_, true) => Owes::Nobody,
            (_, false) => Owes::Backend,
        };
        Some(QueueStatus {
            index: ring.index,
            size: ring.size,
            avail_idx,
            used_idx,
            depth,
            oldest_ms: self.look(ring.index, used_idx, depth).map_or(0, millis),
            owes,
        })
    }

    /// How long the oldest buffer of a queue has been seen outstanding. While the used index stands
    /// still, it is the same one.
    fn look(&self, index: u16, used_idx: u16, depth: u16) -> Option<Duration> {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let last = looks.get_mut(usize::from(index))?;
        let since = last.filter(|last| last.used_idx == used_idx).and_then(|last| last.since);
        let since = (depth != 0).then(|| since.unwrap_or_else(Instant::now));
        *last = Some(Look { used_idx, since });
        since.map(|since| since.elapsed())
    }

    /// Looks at the queues now, so that ages count from here on.
    pub(super) fn look_at_queues(&self) {
        let activation = self.notes().activation.clone();
        for ring in activation.iter().flat_map(|activation| &activation.rings) {
            let _ = self.queue(ring, false);
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "status_test.rs"]
mod tests;
