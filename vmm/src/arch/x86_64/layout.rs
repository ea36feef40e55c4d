//! Where everything stands in the guest's physical address space and among its ports.
//!
//! Only numbers and how they are derived; what is put there is written elsewhere.
//!
//! ```text
//!   0x0_0000_0000 ┌──────────────────────────────┐
//!                 │ RAM                          │ boot data in the first 640 KiB, see below
//!   0x0_000a_0000 ├──────────────────────────────┤
//!                 │ RAM that is not for use      │ where a PC has VGA and option ROMs
//!   0x0_000e_0000 ├──────────────────────────────┤
//!                 │ ACPI tables                  │ RSDP first
//!   0x0_000f_0000 ├──────────────────────────────┤
//!                 │ reset vector                 │ at the end, as a PC's BIOS has it
//!   0x0_0010_0000 ├──────────────────────────────┤
//!                 │ RAM                          │ kernel from 16 MiB, initrd at the top
//!                 │                              │
//!   0x0_c000_0000 ├──────────────────────────────┤ 3 GiB: RAM that does not fit goes above 4 GiB
//!                 │ 32-bit window for BARs       │
//!   0x0_e000_0000 ├──────────────────────────────┤
//!                 │ PCI configuration (ECAM)     │ one bus: 1 MiB
//!   0x0_e010_0000 ├──────────────────────────────┤
//!                 │ (nothing)                    │
//!   0x0_fec0_0000 ├ I/O APIC                     │ 4 KiB
//!   0x0_fee0_0000 ├ local APICs, MSI             │ 1 MiB
//!   0x0_fffb_c000 ├ KVM's own four pages         │ identity map and TSS, for old Intel processors
//!   0x1_0000_0000 ├──────────────────────────────┤ 4 GiB
//!                 │ RAM beyond the first 3 GiB   │
//!                 ├──────────────────────────────┤ rounded up to 1 GiB
//!                 │ 64-bit window for BARs       │ 64 GiB, or what the processor can address
//!                 └──────────────────────────────┘
//!
//!   In the first 640 KiB, free again for the guest once it has read them:
//!   0x00500 GDT   0x06000 PVH start info   0x07000 zero page   0x09000 page tables
//!   0x20000 command line   0x9fc00 reserved, as where a PC's BIOS keeps its data
//! ```

use std::ops::Range;

/// The GDT that a vCPU starts with.
pub const GDT: u64 = 0x500;
/// PVH: `hvm_start_info`, then its module list and memory map.
pub const PVH_START_INFO: u64 = 0x6000;
/// The 64-bit boot protocol's `boot_params`.
pub const ZERO_PAGE: u64 = 0x7000;
/// Page tables for the 64-bit boot protocol: one PML4, one PDPT, four page directories.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel's command line, up to 64 KiB.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Where the command line must end.
pub const COMMAND_LINE_END: u64 = 0x3_0000;
/// End of the RAM below 1 MiB that the guest may use.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// ACPI tables, with the RSDP first (ACPI 6.5 §5.2.5.1 has it found in this range).
pub const ACPI_TABLES: Range<u64> = 0xe_0000..0xf_0000;
/// What a PC's BIOS fills up to its end; every kernel takes all of it for ROM.
pub const BIOS_END: Range<u64> = 0xf_0000..0x10_0000;
/// FFFF:0000, where software that is in real mode jumps to start the machine anew.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// RAM for everybody begins here.
pub const HIGH_RAM_START: u64 = 0x10_0000;

/// RAM fills the address space up to here, then goes on above 4 GiB.
pub const HOLE_START: u64 = 0xc000_0000;
/// The end of the hole that is left for devices.
pub const HOLE_END: u64 = 0x1_0000_0000;

/// Where PCI BARs below 4 GiB may be.
pub const PCI_WINDOW_32: Range<u64> = HOLE_START..PCI_ECAM.start;
/// PCI configuration space: 4 KiB for each of 256 functions of bus 0. The only bus, as each more
/// is one that the guest would scan.
pub const PCI_ECAM: Range<u64> = 0xe000_0000..0xe010_0000;
/// The I/O APIC (in KVM).
pub const IOAPIC: u64 = 0xfec0_0000;
/// The local APICs (in KVM).
pub const LOCAL_APIC: u64 = 0xfee0_0000;
/// One page that KVM uses where the processor can't run real mode code.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that KVM uses for the same.
pub const KVM_TSS: u64 = KVM_IDENTITY_MAP + 0x1000;

/// The first serial port, COM1.
pub const COM1: u16 = 0x3f8;
/// COM1's interrupt.
pub const COM1_GSI: u32 = 4;
/// The i8042's data and command ports are at +0 and +4.
pub const I8042: u16 = 0x60;
/// The real-time clock's index and data ports.
pub const RTC: u16 = 0x70;
/// ACPI: sleep control, sleep status, reset and event registers, a byte each.
pub const ACPI_REGISTERS: u16 = 0x600;
/// The interrupt of the ACPI generic event device.
pub const GED_GSI: u32 = 5;
/// PCI configuration mechanism 1: address and data.
pub const PCI_CONFIG_PORTS: Range<u16> = 0xcf8..0xd00;

/// Pins of the I/O APIC; GSIs below are its, the ones above are free for MSI routes.
pub const IOAPIC_PINS: u32 = 24;

const GIB: u64 = 1 << 30;
const WINDOW_64_LEN: u64 = 64 * GIB;

/// A stretch of guest memory: guest-physical address and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRange {
    /// The first guest-physical address.
    pub start: u64,
    /// Length in bytes, never zero.
    pub len: u64,
}

impl RamRange {
    /// The address behind the last byte.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// Where `size` bytes of guest memory stand: below the hole, and the rest above it.
pub fn ram_ranges(size: u64) -> Vec<RamRange> {
    let low = RamRange { start: 0, len: size.min(HOLE_START) };
    let high = RamRange { start: HOLE_END, len: size.saturating_sub(HOLE_START) };
    [low, high].into_iter().filter(|range| range.len > 0).collect()
}

/// Where PCI BARs above 4 GiB may be, in a guest with `ram_size` bytes of memory on a processor
/// with `address_bits` of physical address. Empty if nothing is left.
pub fn pci_window_64(ram_size: u64, address_bits: u8) -> Range<u64> {
    let ram_end = ram_ranges(ram_size).last().map_or(0, RamRange::end).max(HOLE_END);
    let limit = 1_u64.checked_shl(address_bits.into()).unwrap_or(u64::MAX);
    let start = ram_end.checked_next_multiple_of(GIB).unwrap_or(limit).min(limit);
    start..start.saturating_add(WINDOW_64_LEN).min(limit)
}

#[cfg(test)]
#[path = "layout_test.rs"]
mod tests;
