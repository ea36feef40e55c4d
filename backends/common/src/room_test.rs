use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::*;
use crate::chain::{Chain, Origin};
use crate::descriptor_table::DescriptorTable;
use crate::region_cache::CachedMemory;
use crate::test_ring::{NEXT, TestRing};

/// What a completed chain of so many pieces leaves.
fn room_of(pieces: u16) -> Room {
    let ring = TestRing::new();
    for index in 0..pieces {
        let flags = if index + 1 < pieces { NEXT } else { 0 };
        ring.descriptor(0x4000, index, (0x1000, 1, flags, index + 1));
    }
    let memory = CachedMemory::new(ring.memory.clone());
    let table = ring.memory.get_slice(GuestAddress(0x4000), 16 * usize::from(pieces)).unwrap();
    let table = DescriptorTable::of_ring(table, pieces);
    let room = Room::new(memory.memory());
    let chain = Chain::walk(&memory, table, false, (0, Origin::Resubmitted), room);
    assert_eq!(chain.reader().unwrap().len(), usize::from(pieces));
    chain.into_room()
}

#[test]
fn room_for_the_longest_packet_of_linux_is_kept_and_for_unusual_chains_it_is_not() {
    let kept = |pieces| {
        let mut rooms = Rooms::default();
        rooms.keep(room_of(pieces));
        rooms.0.len() == 1
    };
    assert!(kept(1));
    assert!(kept(19));
    assert!(!kept(33));
    assert!(!kept(1000));
}

#[test]
fn what_is_kept_is_bounded() {
    let mut rooms = Rooms::default();
    (0..100).for_each(|_| rooms.keep(room_of(32)));
    let pieces: usize = rooms.0.iter().map(|room| room.0.pieces_room()).sum();
    assert_eq!((rooms.0.len(), pieces), (64, 2048));
}
