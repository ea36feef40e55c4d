//! A split virtqueue while it runs: chains out, completions in, notifications both ways, and the
//! record of what is in flight. It knows no device and starts no thread.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};
use vm_memory::{GuestAddress, VolatileMemoryError};

use crate::carried::Carried;
use crate::chain::{Chain, Origin};
use crate::descriptor_table::DescriptorTable;
use crate::device::DeviceError;
use crate::event;
use crate::inflight::{InflightError, InflightQueue};
use crate::kill_point::{self, Step};
use crate::lost_memory;
use crate::memory::Memory;
use crate::metrics::{Metrics, Moment, QueueMetrics};
use crate::ring_memory::{RingMemory, RingPlaceError};
use crate::room::Rooms;

/// How many chains a worker gets before the loop looks at everything else.
const ROUND: u16 = 128;

/// The ring can't go on. One ring stops for it; the process and its other rings live.
#[derive(Debug, thiserror::Error)]
pub enum VringError {
    /// The driver's available index is further ahead than the ring is long.
    #[error(
        "the available index went from {from} to {to}, which is more than the ring's {size} entries"
    )]
    AvailJumped {
        /// The position the device was at.
        from: u16,
        /// The index found.
        to: u16,
        /// The ring's size.
        size: u16,
    },
    /// The driver made a descriptor available that is not in the table.
    #[error("chain head {head} is outside the descriptor table of {size}")]
    HeadOutOfTable {
        /// The head found.
        head: u16,
        /// The ring's size.
        size: u16,
    },
    /// The driver made more chains available than the ring has descriptors.
    #[error("more than {size} chains are in flight")]
    TooManyInFlight {
        /// The ring's size.
        size: u16,
    },
    /// The front-end placed the ring where no ring can be.
    #[error(transparent)]
    Misplaced(#[from] RingPlaceError),
    /// The front-end cut off some of the memory that it shares.
    #[error("the front-end cut off memory that is in use")]
    MemoryLost,
    /// The ring can't be read or written.
    #[error("cannot access the ring")]
    Access(#[from] VolatileMemoryError),
    /// A chain was given back that is not the newest one taken.
    #[error("chain {head} was given back though newer ones were taken")]
    NotNewest {
        /// The chain's head.
        head: u16,
    },
    /// The kick descriptor is no longer one.
    #[error("the front-end broke the kick descriptor")]
    KickLost(#[source] std::io::Error),
    /// Waiting for kicks failed.
    #[error("cannot wait for kicks")]
    Sleep(#[source] std::io::Error),
    /// The record of what is in flight can't be kept.
    #[error("cannot keep the record of what is in flight")]
    Inflight(#[from] InflightError),
    /// The device can't go on.
    #[error("the device cannot go on")]
    Device(#[source] DeviceError),
}

/// Where a ring is and how it was negotiated: all that starting it takes.
pub(crate) struct RingSetup {
    pub(crate) index: u16,
    pub(crate) size: u16,
    pub(crate) descriptors: GuestAddress,
    pub(crate) avail: GuestAddress,
    pub(crate) used: GuestAddress,
    pub(crate) next_avail: u16,
    pub(crate) event_idx: bool,
    pub(crate) indirect: bool,
    pub(crate) call: Option<Arc<File>>,
    pub(crate) call_due: bool,
    pub(crate) inflight: Option<InflightQueue>,
}

/// A split virtqueue while it runs, from the device's side.
pub struct Vring {
    index: u16,
    ring: RingMemory,
    /// The next entry of the available ring to take, and of the used ring to fill.
    next_avail: u16,
    next_used: u16,
    event_idx: bool,
    indirect: bool,
    call: Option<Arc<File>>,
    /// Whether the driver is to be called whatever it wants.
    call_due: bool,
    /// The available index as read last.
    seen: u16,
    /// Whether [`next`](Self::next) found nothing more the last time.
    dry: bool,
    /// How many more chains this round may take.
    round: u16,
    /// What it has completed so far.
    carried: Carried,
    in_flight: u16,
    inflight: Option<InflightQueue>,
    /// Whether the ring stops, and chains may stay in that record.
    leaving: bool,
    /// Chains that a process before this one left in flight; they come first.
    resubmit: VecDeque<u16>,
    /// The used index when the driver was last considered for a call.
    considered: u16,
    /// How often memory had been lost when the ring started.
    losses: u64,
    /// Where what it does is counted, if it is.
    metrics: Option<Arc<QueueMetrics>>,
    /// When the first chain was taken since this round began, or since any was completed in it.
    taking: Option<Moment>,
    /// Of chains that were completed.
    spare: Rooms,
}

impl Vring {
    /// A ring that is ready to be served, from the setup that the front-end gave.
    pub(crate) fn new(mut setup: RingSetup, memory: &Memory) -> Result<Self, VringError> {
        let losses = lost_memory::losses();
        let RingSetup { size, descriptors, avail, used, .. } = setup;
        let ring = RingMemory::find(memory, size, descriptors, avail, used)?;
        // vhost-user has no message for the used index: it is what the ring says.
        let used = ring.used_index()?;
        let mut resubmit = VecDeque::new();
        let mut next_avail = setup.next_avail;
        if let Some(inflight) = &mut setup.inflight {
            let recovered = inflight.recover(used)?;
            next_avail = recovered.next_avail.unwrap_or(next_avail);
            resubmit = recovered.resubmit;
        }
        let vring = Self {
            index: setup.index,
            ring,
            next_avail,
            next_used: used,
            event_idx: setup.event_idx,
            indirect: setup.indirect,
            call: setup.call,
            call_due: setup.call_due,
            seen: next_avail,
            dry: false,
            round: ROUND,
            carried: Carried::default(),
            in_flight: 0,
            inflight: setup.inflight,
            leaving: false,
            resubmit,
            considered: used,
            losses,
            metrics: None,
            taking: None,
            spare: Rooms::default(),
        };
        vring.check_memory()?;
        Ok(vring)
    }

    /// Counts from now on what it does.
    pub(crate) fn count_in(&mut self, metrics: Option<Arc<Metrics>>) {
        self.metrics = metrics.and_then(|metrics| metrics.queue(self.index));
    }

    /// Counts a request that is answered with an error.
    pub fn count_error(&self) {
        self.metrics.iter().for_each(|metrics| metrics.failed());
    }

    /// Counts a wait because of a limit.
    pub fn count_throttled(&self) {
        self.metrics.iter().for_each(|metrics| metrics.throttled());
    }

    /// Whether all that was read since the ring started was really there.
    pub(crate) fn check_memory(&self) -> Result<(), VringError> {
        if lost_memory::losses() == self.losses { Ok(()) } else { Err(VringError::MemoryLost) }
    }

    /// The position in the available ring at which the next process, or start, goes on.
    pub(crate) fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// The queue's index in the device.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The queue's size.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// Whether anything was completed since the driver set the queue up, be it by a process before
    /// this one. (After each multiple of 65,536 completions it looks as if not.)
    pub fn has_used(&self) -> bool {
        self.next_used != 0
    }

    /// How many chains were taken and neither completed nor given back.
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// How many chains a process before this one left in flight that were not taken up again.
    pub(crate) fn resubmitted(&self) -> usize {
        self.resubmit.len()
    }

    /// The next chain that the driver made available, or `None` when there is no more now. So that
    /// a driver which never pauses can't keep a worker from returning, `None` also ends a round of
    /// many chains; the worker is then called again at once.
    ///
    /// # Errors
    /// [`VringError`] when the driver broke the ring itself. What it broke within a chain is found
    /// out from the [`Chain`].
    #[expect(clippy::should_implement_trait, reason = "a ring is not an iterator: it can fail")]
    pub fn next(&mut self) -> Result<Option<Chain>, VringError> {
        let resubmitted = self.resubmit.front().copied();
        let available = if resubmitted.is_some() { None } else { self.available()? };
        self.dry = resubmitted.or(available).is_none();
        if self.dry || self.round == 0 {
            return Ok(None);
        }
        self.round = self.round.saturating_sub(1);
        let size = self.size();
        if self.in_flight >= size {
            return Err(VringError::TooManyInFlight { size });
        }
        let (head, origin) = match (self.resubmit.pop_front(), available) {
            (Some(head), _) => (head, Origin::Resubmitted),
            (None, Some(position)) => (self.take(position)?, Origin::Avail(position)),
            (None, None) => return Ok(None),
        };
        self.in_flight = self.in_flight.saturating_add(1);
        let mut chain = self.walk(head, origin);
        if self.metrics.is_some() {
            // To ask for it costs more than to take a chain: those that are taken together share it.
            chain.set_taken(*self.taking.get_or_insert_with(Moment::now));
        }
        Ok(Some(chain))
    }

    /// Completes `chain`: the driver gets it back with `written` bytes in it. It is told of it,
    /// as far as it wants to be, when the worker returns from serving.
    ///
    /// # Errors
    /// [`VringError::Access`] when the ring is no longer where it was.
    pub fn complete(&mut self, chain: Chain, written: u32) -> Result<(), VringError> {
        self.complete_together([(chain, written)])
    }

    /// Completes several chains, each with the bytes written to it, in one step: the driver sees
    /// all of them or none, as it must where one packet fills several chains.
    ///
    /// # Errors
    /// As for [`complete`](Self::complete).
    pub fn complete_together(
        &mut self,
        chains: impl IntoIterator<Item = (Chain, u32)>,
    ) -> Result<(), VringError> {
        let mut position = self.next_used;
        self.taking = None;
        // Their time ends together: to ask for it costs more than to count it.
        let mut now = None;
        let enter = |(chain, written): (Chain, u32)| -> Result<(), VringError> {
            // virtio 1.3 §2.7.8.2: not more than was written, so never more than there was room.
            let written = written.min(chain.writable_bytes());
            kill_point::reached(Step::Acted);
            if let Some(inflight) = &mut self.inflight {
                inflight.before_used(chain.head())?;
            }
            self.ring.set_used(position, chain.head(), written)?;
            let bytes = chain.readable_bytes().saturating_add(written.into());
            self.carried.add(Carried { chains: 1, bytes });
            kill_point::reached(Step::Entered);
            if let (Some(metrics), Some(taken)) = (&self.metrics, chain.taken()) {
                let now = *now.get_or_insert_with(Moment::now);
                metrics.completed(taken, now, chain.readable_bytes(), written);
            }
            self.spare.keep(chain.into_room());
            position = position.wrapping_add(1);
            self.in_flight = self.in_flight.saturating_sub(1);
            Ok(())
        };
        // A statement of its own, so that they end in one place, in line, whether one fails or not.
        let entered = chains.into_iter().try_for_each(enter);
        entered?;
        // What was done without the memory that it was to be done with is not done.
        self.check_memory()?;
        // virtio 1.3 §2.7.8: the index, behind the flags, publishes the entries before it.
        self.ring.set_used_index(position)?;
        self.next_used = position;
        kill_point::reached(Step::Published);
        if let Some(inflight) = &mut self.inflight {
            inflight.after_used(position)?;
        }
        Ok(())
    }

    /// Puts back the newest chain, untouched: [`next`](Self::next) will return it again.
    ///
    /// # Errors
    /// [`VringError::NotNewest`] when it is not the newest that was taken.
    #[expect(clippy::needless_pass_by_value, reason = "giving back consumes")]
    pub fn give_back(&mut self, chain: Chain) -> Result<(), VringError> {
        if !self.takes_back(&chain) {
            return Err(VringError::NotNewest { head: chain.head() });
        }
        match chain.origin() {
            Origin::Avail(position) => {
                self.next_avail = position;
                if let Some(inflight) = &mut self.inflight {
                    inflight.give_back(chain.head())?;
                }
            }
            // It stays in the record, with its place in the order.
            Origin::Resubmitted => self.resubmit.push_front(chain.head()),
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        Ok(())
    }

    /// Whether `chain` can be [given back](Self::give_back): no newer one is in flight, or was
    /// completed before it.
    pub fn takes_back(&self, chain: &Chain) -> bool {
        match chain.origin() {
            Origin::Avail(position) => position.wrapping_add(1) == self.next_avail,
            Origin::Resubmitted => true,
        }
    }

    pub(crate) fn set_leaving(&mut self, leaving: bool) {
        self.leaving = leaving && self.inflight.is_some();
    }

    /// Whether a worker that drains may [`leave`](Self::leave) chains to whoever serves the ring
    /// next.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Leaves `chain` to whoever serves the ring next and has the record of what is in flight; as
    /// if this process had died with it.
    #[expect(clippy::needless_pass_by_value, reason = "leaving consumes")]
    pub fn leave(&mut self, chain: Chain) {
        tracing::debug!("vring {} leaves chain {}", self.index, chain.head());
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Calls the driver if chains completed and it wants to know. The thread of the ring does so
    /// whenever the worker returns; a worker that goes on for long may do it in between.
    ///
    /// # Errors
    /// [`VringError::Access`] when the ring is no longer where it was.
    pub fn call_if_wanted(&mut self) -> Result<(), VringError> {
        let position = self.next_used;
        let before = std::mem::replace(&mut self.considered, position);
        if position == before && !self.call_due {
            return Ok(());
        }
        if std::mem::take(&mut self.call_due) || self.driver_wants_call(before, position)? {
            self.call.iter().for_each(|call| event::signal(call));
        }
        Ok(())
    }

    /// Begins a round of serving. The driver is asked not to kick meanwhile, as far as the ring's
    /// format can say it.
    pub(crate) fn begin_round(&mut self) -> Result<(), VringError> {
        (self.round, self.carried) = (ROUND, Carried::default());
        self.taking = None;
        // With event indices there is no way to say so, and none is needed: a kick is due for one index only.
        if !self.event_idx {
            self.ring.set_used_flags(VRING_USED_F_NO_NOTIFY as u16)?;
        }
        Ok(())
    }

    /// How many chains this round has taken so far.
    pub(crate) fn taken_in_round(&self) -> u16 {
        ROUND.saturating_sub(self.round)
    }

    /// What this round has completed so far.
    pub(crate) fn carried_in_round(&self) -> Carried {
        self.carried
    }

    /// Whether there is a chain for [`next`](Self::next), now or in another round.
    ///
    /// # Errors
    /// As for that.
    pub fn has_next(&mut self) -> Result<bool, VringError> {
        Ok(!self.resubmit.is_empty() || self.available()?.is_some())
    }

    /// Asks the driver to kick when it makes more available than was seen, and than `ahead` chains besides
    /// where it can be told so. Returns `true` when there is as much already, and waiting would be wrong.
    pub(crate) fn want_kicks(&mut self, ahead: u16) -> Result<bool, VringError> {
        if !self.dry {
            return Ok(true);
        }
        let ahead = if self.event_idx { ahead } else { 0 };
        if self.event_idx {
            // virtio 1.3 §2.7.10: a kick is due when the index goes past `avail_event`. A worker may have
            // given chains back since they were seen; it waits for others than those.
            self.ring.set_avail_event(self.seen.wrapping_add(ahead))?;
        } else {
            self.ring.set_used_flags(0)?;
        }
        // The wish must be out before the index is read, or both sides may miss the other.
        fence(Ordering::SeqCst);
        Ok(self.ring.avail_index()?.wrapping_sub(self.seen) > ahead)
    }

    /// The position of the next entry of the available ring, if the driver has filled it.
    fn available(&mut self) -> Result<Option<u16>, VringError> {
        let position = self.next_avail;
        if position == self.seen {
            let (size, to) = (self.size(), self.ring.avail_index()?);
            if to.wrapping_sub(position) > size {
                return Err(VringError::AvailJumped { from: position, to, size });
            }
            self.seen = to;
        }
        Ok((position != self.seen).then_some(position))
    }

    /// Takes the entry at `position` out of the available ring: on record first, then taken.
    fn take(&mut self, position: u16) -> Result<u16, VringError> {
        let (head, size) = (self.ring.head(position)?, self.size());
        if head >= size {
            return Err(VringError::HeadOutOfTable { head, size });
        }
        kill_point::reached(Step::Seen);
        if let Some(inflight) = &mut self.inflight {
            inflight.take(head)?;
        }
        self.next_avail = position.wrapping_add(1);
        Ok(head)
    }

    fn walk(&mut self, head: u16, origin: Origin) -> Chain {
        let Self { ring, spare, .. } = self;
        let table = DescriptorTable::of_ring(ring.descriptors(), ring.size());
        let room = spare.take(ring.memory().memory());
        Chain::walk(ring.memory(), table, self.indirect, (head, origin), room)
    }

    /// Whether the driver wants a call now that the used index went from `before` to `position`.
    fn driver_wants_call(&self, before: u16, position: u16) -> Result<bool, VringError> {
        // The used index must be out before the driver's wish is read, or both sides may miss the
        // other.
        fence(Ordering::SeqCst);
        if self.event_idx {
            // virtio 1.3 §2.7.7.2: when the index went past `used_event`.
            let since_event = position.wrapping_sub(self.ring.used_event()?).wrapping_sub(1);
            return Ok(since_event < position.wrapping_sub(before));
        }
        Ok(u32::from(self.ring.avail_flags()?) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }
}

#[cfg(test)]
#[path = "vring_test.rs"]
mod tests;
