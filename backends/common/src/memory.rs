//! The guest's memory as the front-end shares it: the table of regions, and the front-end's own
//! addresses translated. It maps and unmaps; nobody here reads or writes.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::fs::File;
use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionCollectionError, GuestRegionMmap};

use crate::lost_memory::Watched;
use crate::shared::{self, MapError, Mapped};

/// Guest memory, mapped.
pub(crate) type Memory = GuestMemoryMmap<()>;

/// The front-end's memory table can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("cannot map {size:#x} bytes of guest memory at {guest:#x} from offset {offset:#x}")]
    Map { guest: u64, size: u64, offset: u64, source: MapError },
    #[error("the memory region of {size:#x} bytes at {guest:#x} reaches beyond the address space")]
    Wraps { guest: u64, size: u64 },
    #[error("the memory regions of the front-end overlap or are empty")]
    Table(#[source] GuestRegionCollectionError),
    #[error("there is no memory region of {size:#x} bytes at {guest:#x} to remove")]
    Unknown { guest: u64, size: u64 },
    #[error("more than {limit} memory regions")]
    TooMany { limit: usize },
}

/// One region, as a message describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegionSpec {
    pub(crate) guest: u64,
    pub(crate) size: u64,
    /// Where the front-end has it; ring addresses come in these.
    pub(crate) user: u64,
    pub(crate) offset: u64,
}

#[derive(Clone)]
struct Region {
    user: u64,
    /// Ends with the last of those who know the region.
    _watched: Arc<Watched>,
    mapped: Arc<GuestRegionMmap<()>>,
    guest: u64,
    size: u64,
}

/// The memory table. Replacing it leaves those who hold the memory from before with that.
#[derive(Default)]
pub(crate) struct MemoryTable {
    regions: Vec<Region>,
    memory: Memory,
}

impl MemoryTable {
    /// How many regions [`add`](Self::add) takes (vhost-user, `GET_MAX_MEM_SLOTS`).
    pub(crate) const MAX_SLOTS: usize = 509;

    /// The memory as it is now.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Puts `regions` in place of all that were there.
    pub(crate) fn replace(
        &mut self,
        regions: impl IntoIterator<Item = (RegionSpec, File)>,
    ) -> Result<(), MemoryError> {
        let regions =
            regions.into_iter().map(|(spec, file)| map(spec, file)).collect::<Result<_, _>>()?;
        self.set(regions)
    }

    /// Adds one region.
    pub(crate) fn add(&mut self, spec: RegionSpec, file: File) -> Result<(), MemoryError> {
        if self.regions.len() >= Self::MAX_SLOTS {
            return Err(MemoryError::TooMany { limit: Self::MAX_SLOTS });
        }
        let mut regions = self.regions.clone();
        regions.push(map(spec, file)?);
        self.set(regions)
    }

    /// Removes the region that `spec` describes: guest address, size and the front-end's address
    /// say which (vhost-user, `REM_MEM_REG`).
    pub(crate) fn remove(&mut self, spec: RegionSpec) -> Result<(), MemoryError> {
        let same = |region: &Region| {
            (region.guest, region.size, region.user) == (spec.guest, spec.size, spec.user)
        };
        let mut regions = self.regions.clone();
        let Some(index) = regions.iter().position(same) else {
            return Err(MemoryError::Unknown { guest: spec.guest, size: spec.size });
        };
        regions.remove(index);
        self.set(regions)
    }

    /// The guest address of what the front-end has at `user`.
    pub(crate) fn translate(&self, user: u64) -> Option<GuestAddress> {
        self.regions.iter().find_map(|region| {
            let offset = user.checked_sub(region.user).filter(|&offset| offset < region.size)?;
            region.guest.checked_add(offset).map(GuestAddress)
        })
    }

    fn set(&mut self, regions: Vec<Region>) -> Result<(), MemoryError> {
        let mut mapped: Vec<_> = regions.iter().map(|region| Arc::clone(&region.mapped)).collect();
        mapped.sort_by_key(|region| vm_memory::GuestMemoryRegion::start_addr(region.as_ref()));
        let memory = if mapped.is_empty() {
            Memory::default()
        } else {
            Memory::from_arc_regions(mapped).map_err(MemoryError::Table)?
        };
        self.memory = memory;
        self.regions = regions;
        Ok(())
    }
}

fn map(spec: RegionSpec, file: File) -> Result<Region, MemoryError> {
    let RegionSpec { guest, size, user, offset } = spec;
    let Mapped { watched, region } = shared::map(file, offset, size)
        .map_err(|source| MemoryError::Map { guest, size, offset, source })?;
    let mapped = GuestRegionMmap::new(region, GuestAddress(guest))
        .map(Arc::new)
        .ok_or(MemoryError::Wraps { guest, size })?;
    Ok(Region { user, _watched: Arc::new(watched), mapped, guest, size })
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;
