#![expect(clippy::arithmetic_side_effects, reason = "the numbers of a test are small")]

use std::io::{Read, Write};

use proptest::prelude::*;

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::test_ring::{INDIRECT, MEMORY, NEXT, SIZE, TABLE, TestRing, WRITE};

fn walk(ring: &TestRing, head: u16) -> Chain {
    walk_with(ring, true, head)
}

fn walk_with(ring: &TestRing, indirect: bool, head: u16) -> Chain {
    let memory = CachedMemory::new(ring.memory.clone());
    let table = ring.memory.get_slice(GuestAddress(TABLE), 16 * usize::from(SIZE)).unwrap();
    let table = DescriptorTable::of_ring(table, SIZE);
    Chain::walk(&memory, table, indirect, (head, Origin::Resubmitted), Room::new(memory.memory()))
}

#[test]
fn a_chain_is_its_readable_then_its_writable_bytes() {
    let ring = TestRing::new();
    ring.descriptor(TABLE, 2, (0x4000, 3, NEXT, 5));
    ring.descriptor(TABLE, 5, (0x5000, 4, NEXT, 0));
    ring.descriptor(TABLE, 0, (0x6000, 5, NEXT | WRITE, 7));
    ring.descriptor(TABLE, 7, (0x7000, 6, WRITE, 0));
    ring.memory.write_slice(b"abc", GuestAddress(0x4000)).unwrap();
    ring.memory.write_slice(b"defg", GuestAddress(0x5000)).unwrap();
    let chain = walk(&ring, 2);
    let (mut reader, mut writer) = chain.buffers().unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "abcdefg");
    assert_eq!((writer.len(), chain.writable_bytes()), (11, 11));
    writer.write_all(b"hello world").unwrap();
    assert!(writer.is_empty());
    let mut bytes = [0; 6];
    ring.memory.read_slice(&mut bytes, GuestAddress(0x7000)).unwrap();
    assert_eq!(&bytes, b" world");
}

#[test]
fn a_chain_has_a_position_unless_it_was_left_in_flight() {
    let ring = TestRing::new();
    assert_eq!(walk(&ring, 0).position(), None);
    let memory = CachedMemory::new(ring.memory.clone());
    let table = ring.memory.get_slice(GuestAddress(TABLE), 16 * usize::from(SIZE)).unwrap();
    let table = DescriptorTable::of_ring(table, SIZE);
    let came = (0, Origin::Avail(0xffff));
    let chain = Chain::walk(&memory, table, true, came, Room::new(memory.memory()));
    assert_eq!(chain.position(), Some(0xffff));
}

#[test]
fn a_buffer_may_span_regions() {
    let ring = TestRing::new();
    ring.descriptor(TABLE, 0, (0x7ffe, 4, WRITE, 0));
    let chain = walk(&ring, 0);
    assert!(chain.writer().unwrap().write_obj(&0x0403_0201u32));
    let mut bytes = [0; 4];
    ring.memory.read_slice(&mut bytes, GuestAddress(0x7ffe)).unwrap();
    assert_eq!(bytes, [1, 2, 3, 4]);
}

#[test]
fn an_indirect_table_may_be_longer_than_the_ring() {
    let ring = TestRing::new();
    for n in 0..100 {
        let flags = if n < 99 { NEXT } else { 0 };
        ring.descriptor(0x9000, n, (0x4000 + u64::from(n), 1, flags, n + 1));
    }
    ring.descriptor(TABLE, 1, (0x9000, 1600, INDIRECT, 0));
    assert_eq!(walk(&ring, 1).reader().unwrap().len(), 100);
}

#[test]
fn an_indirect_table_may_span_regions() {
    let ring = TestRing::new();
    for n in 0..3 {
        let flags = if n < 2 { NEXT } else { 0 };
        ring.descriptor(0x7ff8, n, (0x4000, 1, flags, n + 1));
    }
    ring.descriptor(TABLE, 1, (0x7ff8, 48, INDIRECT, 0));
    assert_eq!(walk(&ring, 1).reader().unwrap().len(), 3);
}

#[test]
fn loops_end() {
    let ring = TestRing::new();
    ring.descriptor(TABLE, 0, (0x4000, 1, NEXT, 1));
    ring.descriptor(TABLE, 1, (0x4000, 1, NEXT, 0));
    let fault = ChainFault::TooLong { limit: usize::from(SIZE) };
    assert_eq!(walk(&ring, 0).buffers().err(), Some(fault));
}

#[test]
fn every_fault_has_its_name() {
    let table = [
        ((0x4000, 1, NEXT, 8), ChainFault::NextOutOfTable { index: 8, size: SIZE }),
        ((MEMORY - 1, 2, 0, 0), ChainFault::BufferOutOfMemory { address: MEMORY - 1, len: 2 }),
        ((u64::MAX, 2, 0, 0), ChainFault::BufferOutOfMemory { address: u64::MAX, len: 2 }),
        ((0x9000, 0, INDIRECT, 0), ChainFault::IndirectSize { len: 0 }),
        ((0x9000, 24, INDIRECT, 0), ChainFault::IndirectSize { len: 24 }),
        ((0x9000, 16 << 16, INDIRECT, 0), ChainFault::IndirectSize { len: 16 << 16 }),
        ((MEMORY, 16, INDIRECT, 0), ChainFault::TableOutOfMemory { address: MEMORY }),
        ((TABLE, 16, INDIRECT, 0), ChainFault::NestedIndirect),
    ];
    for (descriptor, fault) in table {
        let ring = TestRing::new();
        ring.descriptor(TABLE, 0, descriptor);
        let chain = walk(&ring, 0);
        assert_eq!(chain.buffers().err(), Some(fault));
    }
}

#[test]
fn what_is_readable_comes_first() {
    let ring = TestRing::new();
    ring.descriptor(TABLE, 0, (0x4000, 1, NEXT | WRITE, 1));
    ring.descriptor(TABLE, 1, (0x5000, 1, 0, 0));
    assert_eq!(walk(&ring, 0).buffers().err(), Some(ChainFault::WrongOrder));
}

#[test]
fn indirect_tables_need_the_feature() {
    let ring = TestRing::new();
    ring.descriptor(TABLE, 0, (0x9000, 16, INDIRECT, 0));
    assert_eq!(walk_with(&ring, false, 0).buffers().err(), Some(ChainFault::UnexpectedIndirect));
}

#[test]
fn the_last_byte_is_found_behind_a_bad_buffer_but_not_behind_a_bad_link() {
    let ring = TestRing::new();
    ring.descriptor(TABLE, 0, (MEMORY, 512, NEXT | WRITE, 1));
    ring.descriptor(TABLE, 1, (0x4000, 1, WRITE, 0));
    let chain = walk(&ring, 0);
    assert!(chain.buffers().is_err());
    assert!(chain.last_byte().unwrap().write_obj(&7u8));
    assert_eq!(ring.memory.read_obj::<u8>(GuestAddress(0x4000)).unwrap(), 7);

    ring.descriptor(TABLE, 1, (0x4000, 1, NEXT | WRITE, 8));
    assert!(walk(&ring, 0).last_byte().is_none());
}

#[test]
fn readers_and_writers_split_anywhere() {
    let ring = TestRing::new();
    for n in 0..4u16 {
        let flags = if n < 3 { NEXT } else { 0 };
        ring.descriptor(TABLE, n, (0x4000 + 0x100 * u64::from(n), 3, flags, n + 1));
        ring.memory
            .write_slice(
                &[3 * n as u8, 3 * n as u8 + 1, 3 * n as u8 + 2],
                GuestAddress(0x4000 + 0x100 * u64::from(n)),
            )
            .unwrap();
    }
    let chain = walk(&ring, 0);
    for at in 0..=13 {
        let mut front = chain.reader().unwrap();
        let mut back = front.split_off(at);
        let (mut left, mut right) = (Vec::new(), Vec::new());
        front.read_to_end(&mut left).unwrap();
        back.read_to_end(&mut right).unwrap();
        let all: Vec<u8> = (0..12).collect();
        assert_eq!((&left[..], &right[..]), all.split_at(at.min(12)));
    }
    let mut reader = chain.reader().unwrap();
    reader.skip(11);
    assert_eq!(reader.read_obj::<u16>(), None);
    assert_eq!(reader.read_obj::<u8>(), Some(11));
}

proptest! {
    /// Whatever bytes a driver leaves in its tables, the walk ends, and what it found is in memory.
    #[test]
    fn no_descriptors_can_break_the_walk(
        descriptors in prop::collection::vec(
            (0u64..0x12000, 0u32..0x3000, 0u16..8, 0u16..20), 1..24
        ),
        head in 0u16..12,
    ) {
        let ring = TestRing::new();
        for (index, &(at, len, flags, next)) in descriptors.iter().enumerate() {
            ring.descriptor(TABLE, index as u16, (at, len, flags, next));
        }
        let chain = walk(&ring, head);
        if let Ok((mut reader, mut writer)) = chain.buffers() {
            prop_assert!(writer.len() == chain.writable_bytes() as usize);
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            let room = writer.len();
            prop_assert_eq!(writer.copy_from(&vec![0; room + 1]), room);
        }
    }
}
