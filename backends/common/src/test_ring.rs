//! A driver's side of a ring in plain memory, for unit tests.

use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use crate::memory::Memory;
use crate::vring::{RingSetup, Vring};

pub(crate) const NEXT: u16 = VRING_DESC_F_NEXT as u16;
pub(crate) const WRITE: u16 = VRING_DESC_F_WRITE as u16;
pub(crate) const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

pub(crate) const INDEX: u16 = 3;
pub(crate) const SIZE: u16 = 8;
pub(crate) const MEMORY: u64 = 0x10000;
pub(crate) const TABLE: u64 = 0x1000;
pub(crate) const AVAIL: u64 = 0x2000;
pub(crate) const USED: u64 = 0x3000;

/// The memory of a guest with a ring of [`SIZE`].
pub(crate) struct TestRing {
    pub(crate) memory: Memory,
    filled: u16,
}

impl TestRing {
    pub(crate) fn new() -> Self {
        // Two neighbouring regions, which are none in this process.
        let regions = [(GuestAddress(0), 0x8000), (GuestAddress(0x8000), 0x8000)];
        Self { memory: Memory::from_ranges(&regions).unwrap(), filled: 0 }
    }

    pub(crate) fn setup(&self) -> RingSetup {
        RingSetup {
            index: INDEX,
            size: SIZE,
            descriptors: GuestAddress(TABLE),
            avail: GuestAddress(AVAIL),
            used: GuestAddress(USED),
            next_avail: 0,
            event_idx: false,
            indirect: true,
            call: None,
            call_due: false,
            inflight: None,
        }
    }

    pub(crate) fn vring(&self) -> Vring {
        Vring::new(self.setup(), &self.memory).unwrap()
    }

    /// Writes descriptor `index` of a table.
    pub(crate) fn descriptor(
        &self,
        table: u64,
        index: u16,
        (at, len, flags, next): (u64, u32, u16, u16),
    ) {
        let descriptor = Descriptor::new(at, len, flags, next);
        let address = GuestAddress(table + 16 * u64::from(index));
        self.memory.write_obj(descriptor, address).unwrap();
    }

    pub(crate) fn make_available(&mut self, head: u16) {
        let slot = AVAIL + 4 + 2 * u64::from(self.filled % SIZE);
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.filled = self.filled.wrapping_add(1);
        self.set_avail(self.filled);
    }

    pub(crate) fn set_avail(&self, index: u16) {
        self.store(AVAIL + 2, index);
    }

    pub(crate) fn store(&self, at: u64, value: u16) {
        self.memory.store(value, GuestAddress(at), Ordering::SeqCst).unwrap();
    }

    pub(crate) fn load(&self, at: u64) -> u16 {
        self.memory.load(GuestAddress(at), Ordering::SeqCst).unwrap()
    }

    /// The heads and lengths in the used ring.
    pub(crate) fn used(&self) -> Vec<(u32, u32)> {
        (0..self.load(USED + 2))
            .map(|n| {
                let at = GuestAddress(USED + 4 + 8 * u64::from(n % SIZE));
                let [head, len]: [u32; 2] = self.memory.read_obj(at).unwrap();
                (head, len)
            })
            .collect()
    }
}
