//! What the address map promises.

use proptest::prelude::*;

use super::*;

#[test]
fn memory_below_three_gib_is_one_range() {
    assert_eq!(ram_ranges(512 << 20), [RamRange { start: 0, len: 512 << 20 }]);
    assert_eq!(ram_ranges(HOLE_START), [RamRange { start: 0, len: HOLE_START }]);
}

#[test]
fn memory_beyond_three_gib_goes_above_the_hole() {
    assert_eq!(
        ram_ranges(6 * GIB),
        [RamRange { start: 0, len: 3 * GIB }, RamRange { start: 4 * GIB, len: 3 * GIB }]
    );
}

#[test]
fn what_stands_in_the_hole_does_not_overlap() {
    let fixed = [
        PCI_WINDOW_32,
        PCI_ECAM,
        IOAPIC..IOAPIC + 0x1000,
        LOCAL_APIC..LOCAL_APIC + 0x10_0000,
        KVM_IDENTITY_MAP..KVM_TSS,
        KVM_TSS..KVM_TSS + 0x3000,
    ];
    assert_eq!(PCI_WINDOW_32.start, HOLE_START);
    assert!(fixed.is_sorted_by(|before, after| before.end <= after.start));
    assert!(fixed.iter().all(|range| range.start < range.end && range.end <= HOLE_END));
}

#[test]
fn boot_data_does_not_overlap() {
    let page = 0x1000;
    let boot = [
        GDT..GDT + 0x40,
        PVH_START_INFO..PVH_START_INFO + page,
        ZERO_PAGE..ZERO_PAGE + page,
        PAGE_TABLES..PAGE_TABLES + 6 * page,
        COMMAND_LINE..COMMAND_LINE_END,
    ];
    assert!(boot.is_sorted_by(|before, after| before.end <= after.start));
    assert!(boot[4].end <= LOW_RAM_END);
}

#[test]
fn a_processor_with_few_address_bits_gets_a_smaller_window_or_none() {
    assert_eq!(pci_window_64(GIB, 40), 4 * GIB..68 * GIB);
    assert_eq!(pci_window_64(GIB, 36), 4 * GIB..64 * GIB);
    assert!(pci_window_64(64 * GIB, 36).is_empty());
    assert!(pci_window_64(u64::MAX, 64).is_empty());
}

proptest! {
    #[test]
    fn ranges_hold_all_memory_and_leave_hole_and_windows_free(
        size in 1_u64..1 << 46,
        address_bits in 32_u8..=52,
    ) {
        let ranges = ram_ranges(size);
        prop_assert_eq!(ranges.iter().map(|range| range.len).sum::<u64>(), size);
        prop_assert!(ranges.iter().all(|range| range.end() <= HOLE_START || range.start >= HOLE_END));
        let window = pci_window_64(size, address_bits);
        prop_assert!(ranges.iter().all(|range| window.is_empty() || range.end() <= window.start));
        prop_assert!(window.end <= 1 << address_bits);
    }
}
