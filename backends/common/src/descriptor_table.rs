//! Descriptors as a driver laid them out: the ring's own table, or one that a descriptor points to
//! (virtio 1.3 §2.7.5). It follows no chain.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, VolatileSlice};

use crate::chain::ChainFault;
use crate::memory::Memory;
use crate::region_cache::CachedMemory;
use crate::ring_memory;

const DESCRIPTOR_SIZE: u64 = size_of::<Descriptor>() as u64;

/// Where descriptors are found.
#[derive(Clone, Copy)]
pub(crate) struct DescriptorTable<'m> {
    place: Place<'m>,
    size: u16,
}

#[derive(Clone, Copy)]
enum Place<'m> {
    Mapped(VolatileSlice<'m>),
    /// It may span regions, which need not be neighbours in this process; or not be there at all.
    Anywhere(&'m Memory, GuestAddress),
}

impl<'m> DescriptorTable<'m> {
    /// The ring's own table, of `size` descriptors.
    pub(crate) fn of_ring(descriptors: VolatileSlice<'m>, size: u16) -> Self {
        Self { place: Place::Mapped(descriptors), size }
    }

    /// The table that `descriptor` points to.
    ///
    /// # Errors
    /// [`ChainFault::IndirectSize`] when none can be of that size.
    pub(crate) fn indirect(
        memory: &'m CachedMemory,
        descriptor: &Descriptor,
    ) -> Result<Self, ChainFault> {
        let (address, len) = (descriptor.addr(), descriptor.len());
        let whole = u64::from(len).checked_rem(DESCRIPTOR_SIZE) == Some(0);
        let size =
            u64::from(len).checked_div(DESCRIPTOR_SIZE).and_then(|size| u16::try_from(size).ok());
        let size =
            size.filter(|&size| whole && size > 0).ok_or(ChainFault::IndirectSize { len })?;
        let place = match memory.slice(address, len as usize) {
            Some(slice) => Place::Mapped(slice),
            // It spans regions, or is outside of them.
            None => Place::Anywhere(memory.memory(), address),
        };
        Ok(Self { place, size })
    }

    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// Descriptor `index`.
    ///
    /// # Errors
    /// [`ChainFault`] when it is not in the table, or that not in memory.
    pub(crate) fn read(&self, index: u16) -> Result<Descriptor, ChainFault> {
        let beyond = ChainFault::NextOutOfTable { index, size: self.size };
        if index >= self.size {
            return Err(beyond);
        }
        let offset = u64::from(index).saturating_mul(DESCRIPTOR_SIZE);
        match self.place {
            // As long as its size says.
            Place::Mapped(slice) => ring_memory::read(&slice, offset as usize).ok().ok_or(beyond),
            Place::Anywhere(memory, table) => read_anywhere(memory, table.0.saturating_add(offset)),
        }
    }
}

#[cold]
fn read_anywhere(memory: &Memory, address: u64) -> Result<Descriptor, ChainFault> {
    let descriptor = memory.read_obj(GuestAddress(address)).ok();
    descriptor.ok_or(ChainFault::TableOutOfMemory { address })
}
