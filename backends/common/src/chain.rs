//! One descriptor chain, owned: the walk through the descriptors, with every way in which a
//! driver can get it wrong named. It does not know rings.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use libc::iovec;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};

use crate::buffers::{Reader, Writer};
use crate::memory::Memory;
use crate::room::Room;

/// The longest chain served, in descriptors, and the largest queue: what Linux takes for one
/// vectored call, and what other implementations allow.
pub(crate) const MAX_CHAIN: usize = 1024;

const DESCRIPTOR_SIZE: u64 = size_of::<Descriptor>() as u64;

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

/// Where descriptors are found.
#[derive(Clone, Copy)]
pub(crate) struct DescriptorTable {
    pub(crate) address: GuestAddress,
    pub(crate) size: u16,
    /// Whether the driver accepted `VIRTIO_F_INDIRECT_DESC`.
    pub(crate) indirect: bool,
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
/// memory that it describes mapped.
#[must_use = "a chain that is dropped never completes; complete it or give it back"]
pub struct Chain {
    head: u16,
    origin: Origin,
    /// The readable pieces, then the writable ones; none is empty.
    pieces: Vec<iovec>,
    /// How many of them are readable.
    readable: usize,
    writable_bytes: u32,
    fault: Option<ChainFault>,
    /// Whether the walk came to the last descriptor, so that the last writable byte is known.
    ended: bool,
    /// When it was taken, where that is counted.
    pub(crate) taken: Option<Instant>,
    /// Keeps `pieces` mapped.
    _memory: Arc<Memory>,
}

// SAFETY: only the raw pointers in `pieces` are not `Send`. They point into `_memory`, which any
// thread may use (it is shared with the guest's CPUs anyway) and which moves along.
unsafe impl Send for Chain {}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("head", &self.head)
            .field("readable", &self.reader_of_all().len())
            .field("writable", &self.writable_bytes)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

impl Chain {
    /// Walks the chain that starts at `head`, with room for what it finds.
    pub(crate) fn walk(
        memory: &Arc<Memory>,
        table: DescriptorTable,
        head: u16,
        origin: Origin,
        room: Room,
    ) -> Self {
        let mut chain = Self {
            head,
            origin,
            pieces: room.into_pieces(),
            readable: 0,
            writable_bytes: 0,
            fault: None,
            ended: false,
            taken: None,
            _memory: Arc::clone(memory),
        };
        match chain.walk_table(memory, table) {
            Ok(()) => chain.ended = true,
            Err(fault) => chain.fault = Some(fault),
        }
        chain
    }

    /// Follows the descriptors to the end. A buffer outside of memory does not stop the walk, so
    /// that the end, where devices put their status, may still be found.
    fn walk_table(
        &mut self,
        memory: &Memory,
        mut table: DescriptorTable,
    ) -> Result<(), ChainFault> {
        let mut next = self.head;
        let mut within_indirect = false;
        let mut left = usize::from(table.size).min(MAX_CHAIN);
        let mut bytes = 0u32;
        loop {
            if next >= table.size {
                return Err(ChainFault::NextOutOfTable { index: next, size: table.size });
            }
            left = left
                .checked_sub(1)
                .ok_or(ChainFault::TooLong { limit: usize::from(table.size).min(MAX_CHAIN) })?;
            let descriptor = read_descriptor(memory, table.address, next)?;
            if descriptor.refers_to_indirect_table() {
                if within_indirect {
                    return Err(ChainFault::NestedIndirect);
                }
                table = indirect_table(&descriptor, table)?;
                within_indirect = true;
                next = 0;
                left = usize::from(table.size).min(MAX_CHAIN);
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

    fn push(&mut self, memory: &Memory, descriptor: &Descriptor) -> Result<(), ChainFault> {
        let (address, len) = (descriptor.addr(), descriptor.len());
        let known = self.pieces.len();
        if descriptor.is_write_only() {
            // The sum over the chain is bounded to 32 bits by the walk.
            self.writable_bytes = self.writable_bytes.saturating_add(len);
        }
        if !descriptor.is_write_only() && known > self.readable {
            return Err(ChainFault::WrongOrder);
        }
        let piece = |slice: &VolatileSlice<'_>| iovec {
            iov_base: slice.ptr_guard_mut().as_ptr().cast(),
            iov_len: slice.len(),
        };
        match memory.get_slice(address, len as usize) {
            Ok(slice) if len > 0 => self.pieces.push(piece(&slice)),
            // It may span regions, which need not be neighbours in this process.
            _ => {
                for slice in memory.get_slices(address, len as usize) {
                    let Ok(slice) = slice else {
                        self.pieces.truncate(known);
                        return Err(ChainFault::BufferOutOfMemory { address: address.0, len });
                    };
                    if !slice.is_empty() {
                        self.pieces.push(piece(&slice));
                    }
                }
            }
        }
        if !descriptor.is_write_only() {
            self.readable = self.pieces.len();
        }
        Ok(())
    }

    /// What the driver gave to read, and the room it gave to write.
    ///
    /// # Errors
    /// [`ChainFault`] when the driver got the chain wrong; nothing of it can be trusted then.
    pub fn buffers(&self) -> Result<(Reader<'_>, Writer<'_>), ChainFault> {
        match self.fault {
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
        if !self.ended {
            return None;
        }
        let mut writer = self.writer_of_all();
        let before = writer.len().checked_sub(1)?;
        writer.skip(before);
        Some(writer)
    }

    /// How many bytes of room the chain has in all.
    pub fn writable_bytes(&self) -> u32 {
        self.writable_bytes
    }

    /// How many bytes its readable buffers hold, whatever else is wrong with it.
    #[must_use]
    pub fn readable_bytes(&self) -> u64 {
        self.reader_of_all().len() as u64
    }

    /// Whether a process before this one left it in flight, so that it has waited long enough.
    #[must_use]
    pub fn is_resubmitted(&self) -> bool {
        self.origin == Origin::Resubmitted
    }

    /// The room of its pieces, for another's.
    pub(crate) fn into_room(self) -> Room {
        Room::of(self.pieces)
    }

    pub(crate) fn head(&self) -> u16 {
        self.head
    }

    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    fn reader_of_all(&self) -> Reader<'_> {
        Reader::new(self.pieces.get(..self.readable).unwrap_or_default())
    }

    fn writer_of_all(&self) -> Writer<'_> {
        Writer::new(self.pieces.get(self.readable..).unwrap_or_default())
    }
}

fn read_descriptor(
    memory: &Memory,
    table: GuestAddress,
    index: u16,
) -> Result<Descriptor, ChainFault> {
    let offset = u64::from(index).saturating_mul(DESCRIPTOR_SIZE);
    let address = table.0.saturating_add(offset);
    memory
        .read_obj(GuestAddress(address))
        .map_err(|_outside| ChainFault::TableOutOfMemory { address })
}

/// virtio 1.3 §2.7.5.3: the table is read from its first descriptor on.
fn indirect_table(
    descriptor: &Descriptor,
    table: DescriptorTable,
) -> Result<DescriptorTable, ChainFault> {
    if !table.indirect {
        return Err(ChainFault::UnexpectedIndirect);
    }
    let len = descriptor.len();
    let whole = u64::from(len).checked_rem(DESCRIPTOR_SIZE) == Some(0);
    let size =
        u64::from(len).checked_div(DESCRIPTOR_SIZE).and_then(|size| u16::try_from(size).ok());
    match size {
        Some(size) if whole && size > 0 => {
            Ok(DescriptorTable { address: descriptor.addr(), size, ..table })
        }
        _ => Err(ChainFault::IndirectSize { len }),
    }
}

#[cfg(test)]
#[path = "chain_test.rs"]
mod tests;
