//! ACPI tables: what a stock kernel needs to find processors, PCI, the clock and the power button.
//!
//! Hardware-reduced ACPI (ACPI 6.5 §4.1): no fixed hardware, so no SCI, PM timer or SMI command.
//! This folder describes; the registers described are in `legacy`, the addresses in `layout`.

mod dsdt;
mod fixed;

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::arch::layout;

const OEM_ID: [u8; 6] = *b"ATOLL ";
const OEM_TABLE_ID: [u8; 8] = *b"ATOLLVMM";
const OEM_REVISION: u32 = 1;

/// Where tables start: the RSDP must be at a multiple of 16, and the others may be.
const ALIGNMENT: u64 = 16;

/// What the tables say of the machine that is not the same in every machine.
#[derive(Clone, Debug)]
pub struct Platform {
    /// vCPUs; their APIC IDs are 0 to one below.
    pub cpus: u8,
    /// Whether there is a serial port at COM1.
    pub serial: bool,
    /// Where PCI BARs above 4 GiB may be; may be empty.
    pub pci_window_64: Range<u64>,
}

/// The tables could not be put into memory.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// They are too long for their place.
    #[error("the ACPI tables take {needed:#x} bytes and there is room for {room:#x}")]
    TooLong {
        /// How much they take.
        needed: u64,
        /// How much there is.
        room: u64,
    },
    /// Their place is not in memory.
    #[error("can't write the ACPI tables to guest memory at {address:#x}")]
    Write {
        /// The place.
        address: u64,
        /// Why.
        source: vm_memory::GuestMemoryError,
    },
}

/// Writes the tables for `platform` into guest memory and returns the address of the RSDP.
///
/// # Errors
/// [`AcpiError`], neither of which happens to a machine that is laid out right.
pub fn write(memory: &GuestMemoryMmap, platform: &Platform) -> Result<u64, AcpiError> {
    let rsdp_address = layout::ACPI_TABLES.start;
    let mut place = Place { memory, next: rsdp_address };
    place.advance(Rsdp::len())?;
    let dsdt = place.put(dsdt::table(platform).as_slice())?;
    let fixed = [bytes(&fixed::fadt(dsdt)), bytes(&fixed::madt(platform)), bytes(&fixed::mcfg())];
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in fixed {
        xsdt.add_entry(place.put(&table)?);
    }
    let xsdt_address = place.put(&bytes(&xsdt))?;
    Place { memory, next: rsdp_address }.put(&bytes(&Rsdp::new(OEM_ID, xsdt_address)))
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Where the next table goes.
struct Place<'a> {
    memory: &'a GuestMemoryMmap,
    next: u64,
}

impl Place<'_> {
    fn put(&mut self, table: &[u8]) -> Result<u64, AcpiError> {
        let address = self.advance(table.len())?;
        self.memory
            .write_slice(table, GuestAddress(address))
            .map_err(|source| AcpiError::Write { address, source })?;
        Ok(address)
    }

    /// Reserves the room for a table of `len` bytes and returns where it starts.
    fn advance(&mut self, len: usize) -> Result<u64, AcpiError> {
        let (start, room) = (self.next, layout::ACPI_TABLES);
        let end = start.saturating_add(len as u64);
        if end > room.end {
            let (needed, room) = (end - room.start, room.end - room.start);
            return Err(AcpiError::TooLong { needed, room });
        }
        self.next = end.next_multiple_of(ALIGNMENT);
        Ok(start)
    }
}

#[cfg(test)]
#[path = "acpi_test.rs"]
mod tests;
