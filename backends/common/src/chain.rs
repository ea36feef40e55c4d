//! One descriptor chain, owned: the walk through the descriptors, with every way in which a
//! driver can get it wrong named. It does not know rings.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::fmt;
use std::sync::Arc;

use libc::iovec;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileSlice};

use crate::buffers::{Reader, Writer};
use crate::descriptor_table::DescriptorTable;
use crate::memory::Memory;
use crate::metrics::Moment;
use crate::region_cache::CachedMemory;
use crate::room::Room;

/// The longest chain served, in descriptors, and the largest queue: what Linux takes for one
/// vectored call, and what other implementations allow.
pub(crate) const MAX_CHAIN: usize = 1024;

/// What the driver got wrong in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// It is a loop, or longer than any driver may make it (virtio 1.3 §2.7.5.3.1).
    #[error("the chain loops or is longer than {limit} descriptors")]
    TooLong {
        /// How many descriptors the table allows.
        limit: usize,
    },
    /// A `next` field points outside the descriptor table.
    #[error("descriptor {index} is outside the table of {size}")]
    NextOutOfTable {
        /// The descriptor pointed to.
        index: u16,
        /// The size of the table.
        size: u16,
    },
    /// A descriptor can't be read, which only an indirect table outside of memory leads to.
    #[error("the descriptor at {address:#x} is outside the guest's memory")]
    TableOutOfMemory {
        /// Its guest address.
        address: u64,
    },
    /// A buffer is not in guest memory.
    #[error("the buffer of {len:#x} bytes at {address:#x} is outside the guest's memory")]
    BufferOutOfMemory {
        /// Its guest address.
        address: u64,
        /// Its length.
        len: u32,
    },
    /// An indirect descriptor within an indirect table (virtio 1.3 §2.7.5.3.1).
    #[error("an indirect descriptor points to another indirect table")]
    NestedIndirect,
    /// An indirect descriptor though the feature was not accepted (virtio 1.3 §2.7.5.3.1).
    #[error("an indirect descriptor though VIRTIO_F_INDIRECT_DESC was not accepted")]
    UnexpectedIndirect,
    /// An indirect table that is empty, too long or not a whole number of descriptors.
    #[error("an indirect table of {len} bytes")]
    IndirectSize {
        /// Its length in bytes.
        len: u32,
    },
    /// A readable descriptor after a writable one (virtio 1.3 §2.7.4.2).
    #[error("a device-readable buffer follows a device-writable one")]
    WrongOrder,
    /// More than 2^32 bytes (virtio 1.3 §2.7.5.2).
    #[error("the chain holds more than 4 GiB")]
    TooManyBytes,
}

/// How a chain came to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From this position of the available ring.
    Avail(u16),
    /// From the in-flight region, left by a process before this one.
    Resubmitted,
}

/// A descriptor chain, taken from the available ring and not completed yet. It keeps the guest
/// memory that it describes mapped. In a box, as devices pass it on several times.
#[must_use = "a chain that is dropped never completes; complete it or give it back"]
pub struct Chain(Box<Walked>);

/// What a walk found.
pub(crate) struct Walked {
    head: u16,
    origin: Origin,
    /// The readable pieces, then the writable ones; none is empty.
    pieces: Vec<iovec>,
    /// How many of them are readable; and the bytes in those, and in the others.
    readable: usize,
    readable_len: usize,
    writable_len: usize,
    /// As the driver has it, whether that is in memory or not.
    writable_bytes: u32,
    fault: Option<ChainFault>,
    /// Whether the walk came to the last descriptor, so that the last writable byte is known.
    ended: bool,
    /// When it, or the first of those that were taken with it, was taken, where that is counted.
    taken: Option<Moment>,
    /// Keeps `pieces` mapped.
    _memory: Arc<Memory>,
}

// SAFETY: only the raw pointers in `pieces` are not `Send`. They point into `_memory`, which any
// thread may use (it is shared with the guest's CPUs anyway) and which moves along.
unsafe impl Send for Walked {}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("head", &self.0.head)
            .field("readable", &self.0.readable_len)
            .field("writable", &self.0.writable_bytes)
            .field("fault", &self.0.fault)
            .finish_non_exhaustive()
    }
}

impl Walked {
    /// Before a walk.
    pub(crate) fn nothing(memory: Arc<Memory>) -> Self {
        Self {
            head: 0,
            origin: Origin::Resubmitted,
            pieces: Vec::new(),
            readable: 0,
            readable_len: 0,
            writable_len: 0,
            writable_bytes: 0,
            fault: None,
            ended: false,
            taken: None,
            _memory: memory,
        }
    }

    /// As before a walk, but for the room that there is.
    pub(crate) fn forget(&mut self) {
        self.pieces.clear();
        (self.readable, self.readable_len, self.writable_len) = (0, 0, 0);
        (self.writable_bytes, self.fault, self.ended, self.taken) = (0, None, false, None);
    }

    /// For how many pieces there is room.
    pub(crate) fn pieces_room(&self) -> usize {
        self.pieces.capacity()
    }

    /// Follows the descriptors to the end. A buffer outside of memory does not stop the walk, so
    /// that the end, where devices put their status, may still be found.
    fn walk<'m>(
        &mut self,
        memory: &'m CachedMemory,
        mut table: DescriptorTable<'m>,
        indirect: bool,
    ) -> Result<(), ChainFault> {
        let mut next = self.head;
        let mut within_indirect = false;
        let mut limit = usize::from(table.size()).min(MAX_CHAIN);
        let mut left = limit;
        let mut bytes = 0u32;
        loop {
            let descriptor = table.read(next)?;
            left = left.checked_sub(1).ok_or(ChainFault::TooLong { limit })?;
            if descriptor.refers_to_indirect_table() {
                if within_indirect {
                    return Err(ChainFault::NestedIndirect);
                }
                if !indirect {
                    return Err(ChainFault::UnexpectedIndirect);
                }
                // virtio 1.3 §2.7.5.3: the table is read from its first descriptor on.
                table = DescriptorTable::indirect(memory, &descriptor)?;
                within_indirect = true;
                next = 0;
                limit = usize::from(table.size()).min(MAX_CHAIN);
                left = limit;
                continue;
            }
            bytes = bytes.checked_add(descriptor.len()).ok_or(ChainFault::TooManyBytes)?;
            if let Err(fault) = self.push(memory, &descriptor) {
                self.fault.get_or_insert(fault);
            }
            if !descriptor.has_next() {
                return Ok(());
            }
            next = descriptor.next();
        }
    }

    fn push(&mut self, memory: &CachedMemory, descriptor: &Descriptor) -> Result<(), ChainFault> {
        let (address, len) = (descriptor.addr(), descriptor.len());
        if descriptor.is_write_only() {
            // The sum over the chain is bounded to 32 bits by the walk.
            self.writable_bytes = self.writable_bytes.saturating_add(len);
        }
        if !descriptor.is_write_only() && self.pieces.len() > self.readable {
            return Err(ChainFault::WrongOrder);
        }
        match memory.slice(address, len as usize) {
            Some(slice) if len > 0 => self.pieces.push(piece(&slice)),
            _ => self.push_spanning(memory.memory(), address, len)?,
        }
        if descriptor.is_write_only() {
            self.writable_len = self.writable_len.saturating_add(len as usize);
        } else {
            self.readable = self.pieces.len();
            self.readable_len = self.readable_len.saturating_add(len as usize);
        }
        Ok(())
    }

    /// Pushes what may span regions, which need not be neighbours in this process.
    #[cold]
    fn push_spanning(
        &mut self,
        memory: &Memory,
        address: GuestAddress,
        len: u32,
    ) -> Result<(), ChainFault> {
        let known = self.pieces.len();
        for slice in memory.get_slices(address, len as usize) {
            let Ok(slice) = slice else {
                self.pieces.truncate(known);
                return Err(ChainFault::BufferOutOfMemory { address: address.0, len });
            };
            if !slice.is_empty() {
                self.pieces.push(piece(&slice));
            }
        }
        Ok(())
    }
}

fn piece(slice: &VolatileSlice<'_>) -> iovec {
    iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: slice.len() }
}

impl Chain {
    /// Walks the chain that starts at `head` of `table`, with room for what it finds in `memory`.
    /// `indirect` is whether the driver accepted `VIRTIO_F_INDIRECT_DESC`.
    pub(crate) fn walk(
        memory: &CachedMemory,
        table: DescriptorTable<'_>,
        indirect: bool,
        (head, origin): (u16, Origin),
        room: Room,
    ) -> Self {
        let mut walked = room.into_walked();
        (walked.head, walked.origin) = (head, origin);
        match walked.walk(memory, table, indirect) {
            Ok(()) => walked.ended = true,
            Err(fault) => walked.fault = Some(fault),
        }
        Self(walked)
    }

    /// What the driver gave to read, and the room it gave to write.
    ///
    /// # Errors
    /// [`ChainFault`] when the driver got the chain wrong; nothing of it can be trusted then.
    pub fn buffers(&self) -> Result<(Reader<'_>, Writer<'_>), ChainFault> {
        match self.0.fault {
            Some(fault) => Err(fault),
            None => Ok((self.reader_of_all(), self.writer_of_all())),
        }
    }

    /// What the driver gave to read.
    ///
    /// # Errors
    /// As for [`buffers`](Self::buffers).
    pub fn reader(&self) -> Result<Reader<'_>, ChainFault> {
        self.buffers().map(|(reader, _)| reader)
    }

    /// The room that the driver gave to write.
    ///
    /// # Errors
    /// As for [`buffers`](Self::buffers).
    pub fn writer(&self) -> Result<Writer<'_>, ChainFault> {
        self.buffers().map(|(_, writer)| writer)
    }

    /// The last byte of room, where a block device puts its status. It is found even in many a
    /// chain with a fault, so that its request can be failed instead of left unanswered.
    pub fn last_byte(&self) -> Option<Writer<'_>> {
        if !self.0.ended {
            return None;
        }
        let mut writer = self.writer_of_all();
        let before = writer.len().checked_sub(1)?;
        writer.skip(before);
        Some(writer)
    }

    /// How many bytes of room the chain has in all.
    pub fn writable_bytes(&self) -> u32 {
        self.0.writable_bytes
    }

    /// How many bytes its readable buffers hold, whatever else is wrong with it.
    #[must_use]
    pub fn readable_bytes(&self) -> u64 {
        self.0.readable_len as u64
    }

    /// Where in the available ring it is, also when the ring has stopped and goes on. `None` for one that
    /// a process before this one left in flight.
    #[must_use]
    pub fn position(&self) -> Option<u16> {
        match self.0.origin {
            Origin::Avail(position) => Some(position),
            Origin::Resubmitted => None,
        }
    }

    /// Whether a process before this one left it in flight, so that it has waited long enough.
    #[must_use]
    pub fn is_resubmitted(&self) -> bool {
        self.0.origin == Origin::Resubmitted
    }

    /// When it was taken, where that is counted.
    pub(crate) fn taken(&self) -> Option<Moment> {
        self.0.taken
    }

    pub(crate) fn set_taken(&mut self, taken: Moment) {
        self.0.taken = Some(taken);
    }

    /// Its room, for another.
    pub(crate) fn into_room(self) -> Room {
        Room::of(self.0)
    }

    pub(crate) fn head(&self) -> u16 {
        self.0.head
    }

    pub(crate) fn origin(&self) -> Origin {
        self.0.origin
    }

    fn reader_of_all(&self) -> Reader<'_> {
        let Walked { pieces, readable, readable_len, .. } = self.0.as_ref();
        Reader::new(pieces.get(..*readable).unwrap_or_default(), *readable_len)
    }

    fn writer_of_all(&self) -> Writer<'_> {
        let Walked { pieces, readable, writable_len, .. } = self.0.as_ref();
        Writer::new(pieces.get(*readable..).unwrap_or_default(), *writable_len)
    }
}

#[cfg(test)]
#[path = "chain_test.rs"]
mod tests;
