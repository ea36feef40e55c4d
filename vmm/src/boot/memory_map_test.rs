//! What a kernel learns of its memory.

#![expect(clippy::arithmetic_side_effects, reason = "tests panic where they are wrong")]

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn ram(map: &[MapEntry]) -> Vec<(u64, u64)> {
    let ram = map.iter().filter(|entry| entry.range_type == RangeType::Ram);
    ram.map(|entry| (entry.start, entry.len)).collect()
}

#[test]
fn a_small_guest_has_memory_on_both_sides_of_the_legacy_area() {
    let map = of_size(256 * MIB);
    assert_eq!(ram(&map), [(0, 0x9_fc00), (MIB, 255 * MIB)]);
}

#[test]
fn a_large_guest_has_memory_on_both_sides_of_the_hole() {
    let map = of_size(6 * GIB);
    assert_eq!(ram(&map), [(0, 0x9_fc00), (MIB, 3 * GIB - MIB), (4 * GIB, 3 * GIB)]);
}

#[test]
fn the_pci_configuration_space_is_reserved_and_the_tables_are_acpi() {
    let map = of_size(GIB);
    let typed = |start| map.iter().find(|entry| entry.start == start).unwrap().range_type;
    assert_eq!(typed(layout::PCI_ECAM.start), RangeType::Reserved);
    assert_eq!(typed(layout::ACPI_TABLES.start), RangeType::Acpi);
}

proptest! {
    #[test]
    fn ranges_are_sorted_and_do_not_overlap(size in 64 * MIB..64 * GIB) {
        let map = of_size(size);
        prop_assert!(map.iter().all(|entry| entry.len > 0));
        prop_assert!(map.is_sorted_by(|before, after| before.start + before.len <= after.start));
    }
}
