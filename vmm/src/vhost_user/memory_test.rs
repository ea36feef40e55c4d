//! Guest memory as a back-end gets it.

use vm_memory::{FileOffset, GuestAddress};

use super::*;

fn memory() -> GuestMemoryMmap {
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x4000).unwrap();
    let part = |start| Some(FileOffset::new(file.try_clone().unwrap(), start));
    GuestMemoryMmap::from_ranges_with_files([
        (GuestAddress(0), 0x1000, part(0)),
        (GuestAddress(0x1_0000_0000), 0x3000, part(0x1000)),
    ])
    .unwrap()
}

fn ring(desc: u64, avail: u64, used: u64) -> Ring {
    Ring { index: 3, size: 16, desc, avail, used }
}

#[test]
fn the_table_tells_regions_by_guest_address_only() {
    let memory = memory();
    let table = Table::new(&memory).unwrap();
    let words: Vec<u64> =
        table.body().chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    let high = 0x1_0000_0000;
    assert_eq!(words, [2, 0, 0x1000, 0, 0, high, 0x3000, high, 0x1000]);
    assert_eq!(table.fds().len(), 2);
}

#[test]
fn memory_without_a_file_can_not_be_shared() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0x1000), 0x1000)]).unwrap();
    assert!(matches!(Table::new(&memory), Err(VhostUserError::PrivateMemory(0x1000))));
}

#[test]
fn rings_lie_inside_one_region() {
    let table = Table::new(&memory()).unwrap();
    let high = 0x1_0000_0000;
    assert!(table.check(&ring(0, 0x100, 0x200)).is_ok());
    assert!(table.check(&ring(high + 0x2f00, 0, 0x1000 - 6 - 8 * 16)).is_ok(), "to the last byte");
    for (desc, avail, used, outside) in [
        (0x0f10, 0, 0, 0x0f10),
        (0, 0x1000 - 6, 0, 0x1000 - 6),
        (0, 0, high - 4, high - 4),
        (u64::MAX - 15, 0, 0, u64::MAX - 15),
        (high + 0x3000, 0, 0, high + 0x3000),
    ] {
        match table.check(&ring(desc, avail, used)) {
            Err(VhostUserError::RingOutsideMemory { queue: 3, address }) => {
                assert_eq!(address, outside);
            }
            other => panic!("{other:?}"),
        }
    }
}
