//! The record of what is in flight, in memory that outlives this process, so that its successor
//! knows what to do again (vhost-user, "Inflight I/O tracking", split virtqueues).
//!
//! The order of the stores is the whole point: a death between any two of them leaves a record
//! from which [`InflightQueue::recover`] finds exactly the chains that were taken and not used.
//!
//! ```text
//! region of a queue:  features:64 version:16 desc_num:16 last_batch_head:16 used_idx:16
//!                     then for each descriptor  inflight:8 pad:40 next:16 counter:64
//! ```
//!
//! Behind all queues is a word of the device's own, which no other implementation knows.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{AtomicAccess, Bytes, VolatileMemory, VolatileMemoryError, VolatileSlice};

use crate::chain::MAX_CHAIN;
use crate::kill_point::{self, Mistake, Step};
use crate::shared::{self, MapError, Mapped};

const VERSION: u16 = 1;
const HEADER: usize = 16;
const ENTRY: usize = 16;
const ALIGNMENT: usize = 64;

const VERSION_AT: usize = 8;
const DESC_NUM_AT: usize = 10;
const LAST_BATCH_HEAD_AT: usize = 12;
const USED_IDX_AT: usize = 14;

const INFLIGHT_IN_ENTRY: usize = 0;
const NEXT_IN_ENTRY: usize = 6;
const COUNTER_IN_ENTRY: usize = 8;

/// The record can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InflightError {
    /// It would be for more, or larger, queues than there can be.
    #[error("no in-flight region can be for {queues} queues of {size}")]
    Shape {
        /// How many queues.
        queues: u16,
        /// How many descriptors each.
        size: u16,
    },
    /// It is too small for what it is said to hold.
    #[error("an in-flight region of {len:#x} bytes is too small for {queues} queues of {size}")]
    TooSmall {
        /// Its length in bytes.
        len: u64,
        /// How many queues.
        queues: u16,
        /// How many descriptors each.
        size: u16,
    },
    /// There is no memory for it.
    #[error("cannot make an in-flight region")]
    Make(#[source] io::Error),
    /// It can't be mapped.
    #[error("cannot map the in-flight region")]
    Map(#[source] MapError),
    /// It is not for the queue at hand.
    #[error("the in-flight region has no place for queue {index} of {size}")]
    NoQueue {
        /// The queue.
        index: u16,
        /// How many descriptors it has.
        size: u16,
    },
    /// Another implementation wrote it.
    #[error("the in-flight region has version {version}, and {VERSION} is known")]
    Version {
        /// The version found.
        version: u16,
    },
    /// It can't be read or written.
    #[error("cannot access the in-flight region")]
    Access(#[source] VolatileMemoryError),
}

/// The record of all queues of a device.
#[derive(Clone)]
pub(crate) struct InflightRegion {
    mapped: Arc<Mapped>,
    queues: u16,
    size: u16,
    /// Where the device's own word is, if there is room for it.
    kept: Option<usize>,
    /// Which file it is.
    identity: u64,
}

/// A number that outlives this process as long as the driver does not reset the device: zero at
/// first, then what was stored last, be it by a process before this one. Whoever shares the memory
/// may change it.
#[derive(Clone)]
pub struct Kept {
    mapped: Arc<Mapped>,
    at: usize,
    identity: u64,
}

impl Kept {
    /// A number that all processes have in common to which the front-end hands this record, and
    /// others on this host have not.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// What was stored last.
    pub fn load(&self) -> u64 {
        // It was found to be within the region, and aligned, when it was made.
        self.mapped.region.as_volatile_slice().load(self.at, Ordering::Acquire).unwrap_or_default()
    }

    /// Stores a number, whole or, if the process dies, not at all.
    pub fn store(&self, value: u64) {
        let _within =
            self.mapped.region.as_volatile_slice().store(value, self.at, Ordering::Release);
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({:#x})", self.load())
    }
}

impl InflightRegion {
    /// Makes an empty one in memory that can be passed on. Returns its length as well.
    pub(crate) fn make(queues: u16, size: u16) -> Result<(File, u64), InflightError> {
        let len = region_len(queues, size).ok_or(InflightError::Shape { queues, size })?;
        let len = len.saturating_add(ALIGNMENT as u64);
        let make = || -> io::Result<File> {
            let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
            let file = File::from(memfd_create(c"inflight", flags)?);
            file.set_len(len)?;
            // Whoever gets it can't make the others fault by cutting it.
            let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
            fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
            Ok(file)
        };
        Ok((make().map_err(InflightError::Make)?, len))
    }

    /// Maps one that a front-end kept.
    pub(crate) fn map(
        file: File,
        offset: u64,
        len: u64,
        queues: u16,
        size: u16,
    ) -> Result<Self, InflightError> {
        let needed = region_len(queues, size).ok_or(InflightError::Shape { queues, size })?;
        if len < needed {
            return Err(InflightError::TooSmall { len, queues, size });
        }
        // A region that another implementation has made may end here.
        let with_word = needed.saturating_add(size_of::<u64>() as u64);
        let (len, kept) =
            if len < with_word { (needed, None) } else { (with_word, Some(needed as usize)) };
        let metadata =
            file.metadata().map_err(|source| InflightError::Map(MapError::Look(source)))?;
        let identity = metadata.dev().rotate_left(32) ^ metadata.ino();
        let mapped = shared::map(file, offset, len).map_err(InflightError::Map)?;
        Ok(Self { mapped: Arc::new(mapped), queues, size, kept, identity })
    }

    /// The device's own word, where there is one.
    pub(crate) fn kept(&self) -> Option<Kept> {
        let (mapped, identity) = (&self.mapped, self.identity);
        self.kept.map(|at| Kept { mapped: Arc::clone(mapped), at, identity })
    }

    /// The part of one queue, whose ring has `size` descriptors.
    pub(crate) fn queue(&self, index: u16, size: u16) -> Result<InflightQueue, InflightError> {
        if index >= self.queues || size > self.size {
            return Err(InflightError::NoQueue { index, size });
        }
        let len = queue_len(self.size);
        let start = len.saturating_mul(usize::from(index));
        let region = self.mapped.region.as_volatile_slice();
        let part = region.subslice(start, len).map_err(InflightError::Access)?;
        // SAFETY: `part` is `len` bytes of a region that is not unmapped before the last who holds
        // `mapped` is gone; and the copy made here never leaves an `InflightQueue`, which does.
        let part = unsafe { VolatileSlice::new(part.ptr_guard_mut().as_ptr(), len) };
        let mapped = Arc::clone(&self.mapped);
        Ok(InflightQueue { part, size, counter: 0, newest: 0, settled: 0, _mapped: mapped })
    }
}

fn queue_len(size: u16) -> usize {
    let entries = usize::from(size).saturating_mul(ENTRY);
    entries.saturating_add(HEADER).next_multiple_of(ALIGNMENT)
}

fn region_len(queues: u16, size: u16) -> Option<u64> {
    let possible = queues > 0 && size > 0 && usize::from(size) <= MAX_CHAIN;
    possible.then(|| queue_len(size).saturating_mul(usize::from(queues)) as u64)
}

/// What a dead process left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Where to go on in the available ring; `None` when the record is a fresh one.
    pub(crate) next_avail: Option<u16>,
    /// Heads of the chains that were in flight, in the order in which they were taken.
    pub(crate) resubmit: VecDeque<u16>,
}

/// The record of one queue.
pub(crate) struct InflightQueue {
    /// Looked up once, because each chain takes six accesses.
    part: VolatileSlice<'static>,
    size: u16,
    /// The order of the next chain taken.
    counter: u64,
    /// `last_batch_head` and `used_idx` as this process wrote them, so that a request costs stores only.
    newest: u16,
    settled: u16,
    /// Keeps `part` mapped.
    _mapped: Arc<Mapped>,
}

// SAFETY: what keeps `part` on its thread is the pointer in it. It points into `_mapped`, which any
// thread may use (it is shared with the front-end anyway) and which moves along.
unsafe impl Send for InflightQueue {}

impl InflightQueue {
    /// Finds out what was in flight, once, before any chain is taken. `used` is the used index of
    /// the ring.
    pub(crate) fn recover(&mut self, used: u16) -> Result<Recovered, InflightError> {
        self.newest = self.load(LAST_BATCH_HEAD_AT)?;
        match self.load::<u16>(VERSION_AT)? {
            0 => {
                // A fresh one is all zeroes, or else what it says would be our successor's to do.
                for head in 0..self.size {
                    self.store(entry(head, INFLIGHT_IN_ENTRY), 0u8)?;
                }
                self.store(DESC_NUM_AT, self.size)?;
                self.store(USED_IDX_AT, used)?;
                self.settled = used;
                self.store(VERSION_AT, VERSION)?;
                return Ok(Recovered { next_avail: None, resubmit: VecDeque::new() });
            }
            VERSION => {}
            version => return Err(InflightError::Version { version }),
        }
        // The record may lack the last step of the process before.
        self.settled = self.load(USED_IDX_AT)?;
        self.settle_last_batch(used)?;
        let mut taken = Vec::new();
        for head in 0..self.size {
            if self.load::<u8>(entry(head, INFLIGHT_IN_ENTRY))? != 0 {
                taken.push((self.load::<u64>(entry(head, COUNTER_IN_ENTRY))?, head));
            }
        }
        taken.sort_unstable();
        self.counter = taken.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        // Each chain that was ever taken is used or in flight. There are at most 1024 of these.
        let next_avail = used.wrapping_add(taken.len() as u16);
        let resubmit = taken.into_iter().map(|(_, head)| head).collect();
        Ok(Recovered { next_avail: Some(next_avail), resubmit })
    }

    /// Clears the chains that went into the used ring since the record last knew its index: they
    /// are a list, the newest first.
    fn settle_last_batch(&mut self, used: u16) -> Result<(), InflightError> {
        let batch = used.wrapping_sub(self.settled).min(self.size);
        let mut head = self.newest;
        for older in (0..batch).rev() {
            if head >= self.size {
                break;
            }
            if !kill_point::makes(Mistake::Uncleared) {
                self.store(entry(head, INFLIGHT_IN_ENTRY), 0u8)?;
            }
            kill_point::reached(Step::Cleared);
            if older > 0 {
                head = self.load(entry(head, NEXT_IN_ENTRY))?;
            }
        }
        self.store(USED_IDX_AT, used)?;
        self.settled = used;
        kill_point::reached(Step::Settled);
        Ok(())
    }

    /// Records a chain before anything is done about it. `head` is below the ring's size.
    pub(crate) fn take(&mut self, head: u16) -> Result<(), InflightError> {
        if kill_point::makes(Mistake::Unrecorded) {
            return Ok(());
        }
        self.store(entry(head, COUNTER_IN_ENTRY), self.counter)?;
        kill_point::reached(Step::Numbered);
        if !kill_point::makes(Mistake::Unordered) {
            self.counter = self.counter.wrapping_add(1);
        }
        self.store(entry(head, INFLIGHT_IN_ENTRY), 1u8)?;
        kill_point::reached(Step::Recorded);
        Ok(())
    }

    /// Records a chain that is about to be put into the used ring.
    pub(crate) fn before_used(&mut self, head: u16) -> Result<(), InflightError> {
        self.store(entry(head, NEXT_IN_ENTRY), self.newest)?;
        kill_point::reached(Step::Linked);
        self.store(LAST_BATCH_HEAD_AT, head)?;
        self.newest = head;
        kill_point::reached(Step::Newest);
        Ok(())
    }

    /// Clears the chains that were put into the used ring in one step, after which its index is
    /// `used`.
    pub(crate) fn after_used(&mut self, used: u16) -> Result<(), InflightError> {
        self.settle_last_batch(used)
    }

    /// Clears a chain that was put back untouched.
    pub(crate) fn give_back(&mut self, head: u16) -> Result<(), InflightError> {
        kill_point::reached(Step::Returned);
        self.store(entry(head, INFLIGHT_IN_ENTRY), 0u8)?;
        kill_point::reached(Step::Forgotten);
        Ok(())
    }

    fn load<T: AtomicAccess>(&self, at: usize) -> Result<T, InflightError> {
        self.part.load(at, Ordering::Acquire).map_err(InflightError::Access)
    }

    /// Release, so that no store is seen before those that precede it.
    fn store<T: AtomicAccess>(&self, at: usize, value: T) -> Result<(), InflightError> {
        self.part.store(value, at, Ordering::Release).map_err(InflightError::Access)
    }
}

fn entry(head: u16, field: usize) -> usize {
    usize::from(head).saturating_mul(ENTRY).saturating_add(HEADER).saturating_add(field)
}

#[cfg(test)]
#[path = "inflight_test.rs"]
mod tests;
