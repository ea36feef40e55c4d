//! Guest memory as a back-end gets it: a table of file-backed regions, and rings in them.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::error::VhostUserError;
use crate::virtio::Ring;

struct Region {
    guest_address: u64,
    size: u64,
    file_offset: u64,
    file: Arc<vm_memory::FileOffset>,
}

/// The regions of guest memory.
///
/// Vhost-user names a place in a ring by an address in the front-end's address space, which need
/// only agree with what the table says of it. Ours is the guest's address, so no back-end learns
/// where the VMM's mappings are.
pub(super) struct Table(Vec<Region>);

impl Table {
    /// The table of `memory`, all of which must be backed by files.
    pub(super) fn new(memory: &GuestMemoryMmap) -> Result<Self, VhostUserError> {
        let region = |region: &vm_memory::GuestRegionMmap| {
            let guest_address = region.start_addr().raw_value();
            let offset =
                region.file_offset().ok_or(VhostUserError::PrivateMemory(guest_address))?;
            Ok(Region {
                guest_address,
                size: region.len(),
                file_offset: offset.start(),
                file: Arc::new(offset.clone()),
            })
        };
        memory.iter().map(region).collect::<Result<_, _>>().map(Self)
    }

    /// Body of SET_MEM_TABLE (vhost-user "Memory regions description").
    pub(super) fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        for region in &self.0 {
            let user_address = region.guest_address;
            for word in [region.guest_address, region.size, user_address, region.file_offset] {
                body.extend_from_slice(&word.to_le_bytes());
            }
        }
        body
    }

    /// The descriptors that go with [`Table::body`].
    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(|region| File::as_fd(region.file.file())).collect()
    }

    /// Checks that each part of `ring` lies in one region (sizes: virtio 1.3 §2.7).
    pub(super) fn check(&self, ring: &Ring) -> Result<(), VhostUserError> {
        let size = u64::from(ring.size);
        let len = |entry: u64, rest: u64| size.saturating_mul(entry).saturating_add(rest);
        let parts = [(ring.desc, len(16, 0)), (ring.avail, len(2, 6)), (ring.used, len(8, 6))];
        let outside = parts.into_iter().find(|&(address, len)| !self.holds(address, len));
        outside.map_or(Ok(()), |(address, _)| {
            Err(VhostUserError::RingOutsideMemory { queue: ring.index, address })
        })
    }

    fn holds(&self, address: u64, len: u64) -> bool {
        self.0.iter().any(|region| {
            address
                .checked_sub(region.guest_address)
                .and_then(|offset| offset.checked_add(len))
                .is_some_and(|end| end <= region.size)
        })
    }
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;
