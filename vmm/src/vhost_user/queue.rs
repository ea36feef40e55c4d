//! One split virtqueue as guest memory has it, read only (virtio 1.3 §2.7).
//!
//! While a back-end works on it only the two indices are read, which is all that its data path and
//! this have to do with each other.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ring::VRING_DESC_F_NEXT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::replay::Contents;
use crate::virtio::Ring;

/// A ring in guest memory. Whatever the guest gave for addresses, reading fails and does no harm.
pub(super) struct Queue<'a> {
    memory: &'a GuestMemoryMmap,
    ring: &'a Ring,
}

/// Where index and entries are in the available and the used ring (§2.7.6, §2.7.8).
const IDX_AT: u64 = 2;
const ENTRIES_AT: u64 = 4;
const AVAIL_ENTRY: u64 = 2;
const USED_ENTRY: u64 = 8;
/// A descriptor, and in it its length, flags and next (§2.7.5).
const DESCRIPTOR: u64 = 16;
const LEN_AT: u64 = 8;
const FLAGS_AT: u64 = 12;
const NEXT_AT: u64 = 14;

impl<'a> Queue<'a> {
    pub(super) fn new(memory: &'a GuestMemoryMmap, ring: &'a Ring) -> Self {
        Self { memory, ring }
    }

    /// How many buffers the driver has made available, modulo 65536.
    pub(super) fn avail_idx(&self) -> Option<u16> {
        self.u16_at(self.ring.avail, IDX_AT)
    }

    /// How many buffers the device has used, modulo 65536.
    pub(super) fn used_idx(&self) -> Option<u16> {
        self.u16_at(self.ring.used, IDX_AT)
    }

    /// With EVENT_IDX: up to where the driver has taken what was used (§2.7.7).
    pub(super) fn used_event(&self) -> Option<u16> {
        let entries = u64::from(self.ring.size).checked_mul(AVAIL_ENTRY)?;
        self.u16_at(self.ring.avail, ENTRIES_AT.checked_add(entries)?)
    }

    /// All of it. No back-end may be working on it; the driver may be adding buffers, which are
    /// then in the descriptors but not in the available ring.
    pub(super) fn contents(&self) -> Option<Contents> {
        // The index first: what is before it was written before it.
        let avail_idx = self.avail_idx()?;
        let used_idx = self.used_idx()?;
        let slots = || 0..u64::from(self.ring.size);
        let at = |offset: u64, entry: u64, slot: u64| entry.checked_mul(slot)?.checked_add(offset);
        let avail = |slot| self.u16_at(self.ring.avail, at(ENTRIES_AT, AVAIL_ENTRY, slot)?);
        let used = |slot| self.u32_at(self.ring.used, at(ENTRIES_AT, USED_ENTRY, slot)?);
        let length = |slot| self.u32_at(self.ring.desc, at(LEN_AT, DESCRIPTOR, slot)?);
        let link = |slot| {
            let flags = self.u16_at(self.ring.desc, at(FLAGS_AT, DESCRIPTOR, slot)?)?;
            let next = self.u16_at(self.ring.desc, at(NEXT_AT, DESCRIPTOR, slot)?)?;
            Some((u32::from(flags) & VRING_DESC_F_NEXT != 0).then_some(next))
        };
        Some(Contents {
            avail_idx,
            used_idx,
            avail: slots().map(avail).collect::<Option<_>>()?,
            used: slots().map(used).collect::<Option<_>>()?,
            lengths: slots().map(length).collect::<Option<_>>()?,
            links: slots().map(link).collect::<Option<_>>()?,
        })
    }

    fn u16_at(&self, base: u64, offset: u64) -> Option<u16> {
        let address = GuestAddress(base.checked_add(offset)?);
        self.memory.load::<u16>(address, Ordering::Acquire).ok().map(u16::from_le)
    }

    fn u32_at(&self, base: u64, offset: u64) -> Option<u32> {
        let address = GuestAddress(base.checked_add(offset)?);
        self.memory.load::<u32>(address, Ordering::Acquire).ok().map(u32::from_le)
    }
}
