#![expect(clippy::arithmetic_side_effects, reason = "the numbers of a test are small")]

use std::os::unix::fs::FileExt;

use vm_memory::Bytes;

use super::*;

const PAGE: u64 = 4096;

fn file(pages: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(pages * PAGE).unwrap();
    file
}

fn spec(guest: u64, pages: u64) -> RegionSpec {
    RegionSpec { guest, size: pages * PAGE, user: 0x7000_0000 + guest, offset: 0 }
}

#[test]
fn guest_addresses_and_the_front_ends_lead_to_the_same_bytes() {
    let shared = file(4);
    shared.write_all_at(b"hello", 2 * PAGE + 100).unwrap();
    let mut table = MemoryTable::default();
    let high = RegionSpec { offset: 2 * PAGE, ..spec(0x10_0000, 2) };
    table.replace([(high, shared), (spec(0, 1), file(1))]).unwrap();
    let address = table.translate(0x7010_0000 + 100).unwrap();
    assert_eq!(address, GuestAddress(0x10_0000 + 100));
    let mut bytes = [0; 5];
    table.memory().read_slice(&mut bytes, address).unwrap();
    assert_eq!(&bytes, b"hello");
    for outside in [0, 0x7000_0000 + PAGE, 0x7010_0000 - 1, 0x7010_0000 + 2 * PAGE, u64::MAX] {
        assert_eq!(table.translate(outside), None);
    }
}

#[test]
fn regions_are_added_and_removed_one_by_one() {
    let mut table = MemoryTable::default();
    table.add(spec(8 * PAGE, 1), file(1)).unwrap();
    table.add(spec(0, 1), file(1)).unwrap();
    let unknown = RegionSpec { user: 0, ..spec(0, 1) };
    let error = table.remove(unknown).unwrap_err();
    assert!(matches!(error, MemoryError::Unknown { guest: 0, size: PAGE }));
    table.remove(spec(0, 1)).unwrap();
    assert!(table.translate(0x7000_0000).is_none());
    table.remove(spec(8 * PAGE, 1)).unwrap();
    assert!(table.translate(0x7000_8000).is_none());
}

#[test]
fn what_cannot_be_memory_is_refused_and_changes_nothing() {
    let mut table = MemoryTable::default();
    table.replace([(spec(0, 2), file(2))]).unwrap();
    let short = table.add(spec(16 * PAGE, 2), file(1)).unwrap_err();
    let source = std::error::Error::source(&short).unwrap().to_string();
    assert_eq!(source, "the file of 0x1000 bytes ends before 0x2000");
    let overlap = table.add(spec(PAGE, 1), file(1)).unwrap_err();
    assert!(matches!(overlap, MemoryError::Table(_)));
    let wraps = RegionSpec { guest: u64::MAX - 10, size: PAGE, user: 0, offset: 0 };
    assert!(matches!(table.add(wraps, file(1)), Err(MemoryError::Wraps { .. })));
    let misaligned = RegionSpec { offset: 1, ..spec(32 * PAGE, 1) };
    assert!(matches!(table.add(misaligned, file(2)), Err(MemoryError::Map { .. })));
    assert_eq!(table.translate(0x7000_0000 + PAGE), Some(GuestAddress(PAGE)));
}
