//! The map of memory that a PC's firmware would hand to the kernel.
//!
//! The types and their numbers are the same in both boot protocols, E820's and PVH's (ACPI 6.5,
//! table 15.1).

use crate::arch::layout;
use crate::memory::GuestRam;

/// What an address range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum RangeType {
    /// Memory for everybody.
    Ram = 1,
    /// Nothing that may be used as memory.
    Reserved = 2,
    /// Memory with ACPI tables in it, free once they are read.
    Acpi = 3,
}

/// An address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapEntry {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) range_type: RangeType,
}

/// The map, in ascending order.
pub(super) fn of(ram: &GuestRam) -> Vec<MapEntry> {
    of_size(ram.size())
}

fn of_size(size: u64) -> Vec<MapEntry> {
    let entry = |start: u64, end: u64, range_type| MapEntry {
        start,
        len: end.saturating_sub(start),
        range_type,
    };
    let mut map = vec![
        entry(0, layout::LOW_RAM_END, RangeType::Ram),
        entry(layout::LOW_RAM_END, 0xa_0000, RangeType::Reserved),
        entry(layout::ACPI_TABLES.start, layout::ACPI_TABLES.end, RangeType::Acpi),
        entry(layout::BIOS_END.start, layout::BIOS_END.end, RangeType::Reserved),
    ];
    for range in layout::ram_ranges(size) {
        let start = range.start.max(layout::HIGH_RAM_START);
        map.push(entry(start, range.end(), RangeType::Ram));
    }
    // Reserved, so that the kernel believes MCFG before it can read the DSDT (PCI Firmware
    // Specification 3.3 §4.1.2).
    map.push(entry(layout::PCI_ECAM.start, layout::PCI_ECAM.end, RangeType::Reserved));
    map.sort_by_key(|entry| entry.start);
    map
}

#[cfg(test)]
#[path = "memory_map_test.rs"]
mod tests;
