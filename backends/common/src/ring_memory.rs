//! The three parts of a split virtqueue (virtio 1.3 §2.7) where this process has them: looked up once
//! when the ring starts, because each chain takes four accesses and a look-up costs more than those. It
//! reads and writes fields; what they mean for a ring that runs is not known here.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::sync::atomic::Ordering;

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{
    ByteValued, Bytes, GuestAddress, VolatileMemory, VolatileMemoryError, VolatileSlice,
};

use crate::memory::Memory;
use crate::region_cache::CachedMemory;

/// Where flags, index and entries are, in the available ring as in the used ring (§2.7.6, §2.7.8).
const FLAGS: usize = 0;
const INDEX: usize = 2;
const ENTRIES: usize = 4;

const HEAD: usize = size_of::<u16>();
const USED_ELEMENT: usize = size_of::<u64>();

/// The front-end placed a ring where none can be.
#[derive(Debug, thiserror::Error)]
pub enum RingPlaceError {
    /// virtio 1.3 §2.7 says which sizes and alignments there are.
    #[error("the ring's size or alignment is wrong")]
    Misplaced(#[source] virtio_queue::Error),
    /// A part is not in guest memory, or in two regions, which need not be neighbours in this process.
    #[error(
        "the {part} of {len:#x} bytes at {address:#x} is not within one region of the guest's memory"
    )]
    Outside {
        /// Which of the three parts.
        part: &'static str,
        /// Its guest address.
        address: u64,
        /// Its length in bytes.
        len: usize,
    },
}

/// A ring in guest memory, which stays mapped for as long as this lives.
pub(crate) struct RingMemory {
    descriptors: VolatileSlice<'static>,
    avail: VolatileSlice<'static>,
    used: VolatileSlice<'static>,
    size: u16,
    memory: CachedMemory,
}

// SAFETY: what keeps the slices on their thread is the pointers in them. They point into `memory`,
// which any thread may use (it is shared with the guest's CPUs anyway) and which moves along.
unsafe impl Send for RingMemory {}

impl RingMemory {
    /// The ring of `size` at these guest addresses.
    pub(crate) fn find(
        memory: &Memory,
        size: u16,
        descriptors: GuestAddress,
        avail: GuestAddress,
        used: GuestAddress,
    ) -> Result<Self, RingPlaceError> {
        let mut queue = Queue::new(size).map_err(RingPlaceError::Misplaced)?;
        queue.try_set_desc_table_address(descriptors).map_err(RingPlaceError::Misplaced)?;
        queue.try_set_avail_ring_address(avail).map_err(RingPlaceError::Misplaced)?;
        queue.try_set_used_ring_address(used).map_err(RingPlaceError::Misplaced)?;
        let memory = CachedMemory::new(memory.clone());
        let part = |part, address: GuestAddress, entry: usize, around: usize| {
            let len = usize::from(size).saturating_mul(entry).saturating_add(around);
            let outside = RingPlaceError::Outside { part, address: address.0, len };
            let slice = memory.slice(address, len).ok_or(outside)?;
            // SAFETY: the slice is `len` bytes of a region of `memory`, which is not unmapped before
            // the last who holds that is gone; and the copy made here never leaves a `RingMemory`,
            // which does.
            Ok(unsafe { VolatileSlice::new(slice.ptr_guard_mut().as_ptr(), len) })
        };
        // §2.7: what either ring ends with is there whether it is used or not.
        let around = ENTRIES.saturating_add(size_of::<u16>());
        Ok(Self {
            descriptors: part("descriptor table", descriptors, size_of::<Descriptor>(), 0)?,
            avail: part("available ring", avail, HEAD, around)?,
            used: part("used ring", used, USED_ELEMENT, around)?,
            size,
            memory,
        })
    }

    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// The memory that it is in, and the buffers of its chains.
    pub(crate) fn memory(&self) -> &CachedMemory {
        &self.memory
    }

    pub(crate) fn descriptors(&self) -> VolatileSlice<'_> {
        self.descriptors
    }

    /// How far the driver is, and all that it wrote before it said so.
    pub(crate) fn avail_index(&self) -> Result<u16, VolatileMemoryError> {
        self.avail.load(INDEX, Ordering::Acquire).map(u16::from_le)
    }

    /// The available ring's entry at `position`.
    pub(crate) fn head(&self, position: u16) -> Result<u16, VolatileMemoryError> {
        read(&self.avail, self.entry(position, HEAD)).map(u16::from_le)
    }

    pub(crate) fn avail_flags(&self) -> Result<u16, VolatileMemoryError> {
        self.avail.load(FLAGS, Ordering::Relaxed).map(u16::from_le)
    }

    /// Behind the entries (§2.7.7.2).
    pub(crate) fn used_event(&self) -> Result<u16, VolatileMemoryError> {
        self.avail.load(self.end(HEAD), Ordering::Relaxed).map(u16::from_le)
    }

    pub(crate) fn used_index(&self) -> Result<u16, VolatileMemoryError> {
        self.used.load(INDEX, Ordering::Acquire).map(u16::from_le)
    }

    /// Says how far the device is, after all that it wrote before.
    pub(crate) fn set_used_index(&self, index: u16) -> Result<(), VolatileMemoryError> {
        self.used.store(index.to_le(), INDEX, Ordering::Release)
    }

    /// Fills the used ring's entry at `position`.
    pub(crate) fn set_used(
        &self,
        position: u16,
        head: u16,
        written: u32,
    ) -> Result<(), VolatileMemoryError> {
        let element = u64::from(head) | u64::from(written) << 32;
        let entry = self.used.get_ref::<u64>(self.entry(position, USED_ELEMENT))?;
        entry.store(element.to_le());
        Ok(())
    }

    pub(crate) fn set_used_flags(&self, flags: u16) -> Result<(), VolatileMemoryError> {
        self.used.store(flags.to_le(), FLAGS, Ordering::Relaxed)
    }

    /// Behind the entries (§2.7.10.1).
    pub(crate) fn set_avail_event(&self, event: u16) -> Result<(), VolatileMemoryError> {
        self.used.store(event.to_le(), self.end(USED_ELEMENT), Ordering::Relaxed)
    }

    fn entry(&self, position: u16, len: usize) -> usize {
        let slot = position.checked_rem(self.size).unwrap_or_default();
        usize::from(slot).saturating_mul(len).saturating_add(ENTRIES)
    }

    fn end(&self, len: usize) -> usize {
        usize::from(self.size).saturating_mul(len).saturating_add(ENTRIES)
    }
}

/// A value that the guest may change at any time, whatever its alignment.
pub(crate) fn read<T: ByteValued>(
    slice: &VolatileSlice<'_>,
    offset: usize,
) -> Result<T, VolatileMemoryError> {
    slice.get_ref(offset).map(|value| value.load())
}
