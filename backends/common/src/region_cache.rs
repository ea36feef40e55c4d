//! Guest memory with the region at hand that was looked up last: nearly all that a driver names is
//! where the last was, and the table of all regions is left alone then. It reads and writes nothing.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::cell::Cell;
use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion, VolatileSlice};

use crate::memory::Memory;

/// A region: its guest address, and where this process has it.
#[derive(Clone, Copy)]
struct Region(GuestAddress, VolatileSlice<'static>);

impl Region {
    fn slice(&self, address: GuestAddress, len: usize) -> Option<VolatileSlice<'static>> {
        let Self(start, slice) = self;
        let offset = address.0.checked_sub(start.0)?;
        slice.subslice(usize::try_from(offset).ok()?, len).ok()
    }
}

/// The memory of one ring and its chains, which stays mapped for as long as this lives.
pub(crate) struct CachedMemory {
    last: Cell<Option<Region>>,
    /// A copy of the table of the ring's own, so that chains of different rings share no counter.
    memory: Arc<Memory>,
}

// SAFETY: what keeps `last` on its thread is the pointer in it. It points into `memory`, which any
// thread may use (it is shared with the guest's CPUs anyway) and which moves along.
unsafe impl Send for CachedMemory {}

impl CachedMemory {
    pub(crate) fn new(memory: Memory) -> Self {
        Self { last: Cell::new(None), memory: Arc::new(memory) }
    }

    /// All of it.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The bytes at `address`, of which there are some, if they are in one region.
    pub(crate) fn slice(&self, address: GuestAddress, len: usize) -> Option<VolatileSlice<'_>> {
        let last = self.last.get().and_then(|region| region.slice(address, len));
        last.or_else(|| self.look_up(address)?.slice(address, len))
    }

    #[cold]
    fn look_up(&self, address: GuestAddress) -> Option<Region> {
        let region = self.memory.find_region(address)?;
        let slice = region.as_volatile_slice().ok()?;
        // SAFETY: the slice is a region of `memory`, which is not unmapped before the last who holds
        // that is gone; and copies of the one made here are not handed out for longer than `self` is
        // borrowed, which does.
        let slice = unsafe { VolatileSlice::new(slice.ptr_guard_mut().as_ptr(), slice.len()) };
        let found = Region(region.start_addr(), slice);
        self.last.set(Some(found));
        Some(found)
    }
}

#[cfg(test)]
#[path = "region_cache_test.rs"]
mod tests;
