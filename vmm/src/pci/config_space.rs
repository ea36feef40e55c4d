//! The 256 bytes of a type 0 configuration space: which bits there are and which the guest may
//! change.
//!
//! Plain registers without side effects; whoever owns them looks afterwards at what changed.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use super::PciError;

/// Bytes in a conventional function's configuration space.
const SIZE: usize = 256;

const VENDOR_ID: usize = 0x00;
const DEVICE_ID: usize = 0x02;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION_ID: usize = 0x08;
const CLASS_CODE: usize = 0x09;
const CACHE_LINE_SIZE: usize = 0x0c;
const LATENCY_TIMER: usize = 0x0d;
const BAR0: usize = 0x10;
const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
const SUBSYSTEM_ID: usize = 0x2e;
const CAPABILITIES_POINTER: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const FIRST_CAPABILITY: usize = 0x40;

const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_INTX_DISABLE: u16 = 1 << 10;
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// BAR bits 2:1 = 10b: anywhere in 64-bit memory space.
const BAR_64_BIT: u64 = 0b100;
const BAR_FLAGS: u64 = 0xf;

/// Who a function says it is.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Base class, subclass and programming interface: `0xBBSSPP`.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
}

/// Configuration space of one function.
pub struct ConfigSpace {
    registers: [u8; SIZE],
    /// Bits the guest may change.
    writable: [u8; SIZE],
    /// Where the next capability goes.
    next_capability: usize,
    /// Where the pointer to it goes.
    link: usize,
}

impl ConfigSpace {
    /// Registers of a function without BARs and capabilities.
    pub fn new(ids: &Ids) -> Self {
        let mut space = Self {
            registers: [0; SIZE],
            writable: [0; SIZE],
            next_capability: FIRST_CAPABILITY,
            link: CAPABILITIES_POINTER,
        };
        space.set(VENDOR_ID, &ids.vendor.to_le_bytes());
        space.set(DEVICE_ID, &ids.device.to_le_bytes());
        space.set(REVISION_ID, &[ids.revision]);
        let [prog_if, subclass, class, _] = ids.class.to_le_bytes();
        space.set(CLASS_CODE, &[prog_if, subclass, class]);
        space.set(SUBSYSTEM_VENDOR_ID, &ids.subsystem_vendor.to_le_bytes());
        space.set(SUBSYSTEM_ID, &ids.subsystem.to_le_bytes());
        let command = COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
        space.allow(COMMAND, &command.to_le_bytes());
        // No effect, but software expects to find again what it wrote.
        space.allow(CACHE_LINE_SIZE, &[0xff]);
        space.allow(LATENCY_TIMER, &[0xff]);
        space.allow(INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Gives the function a 64-bit memory BAR 0 of `size` bytes, a power of two of at least 16.
    ///
    /// The address bits below the size are fixed at zero, which is how software finds the size.
    pub fn add_bar(&mut self, size: u64) {
        self.set(BAR0, &BAR_64_BIT.to_le_bytes());
        self.allow(BAR0, &(size.wrapping_neg() & !BAR_FLAGS).to_le_bytes());
    }

    /// Writes BAR 0 as firmware would.
    pub fn place_bar(&mut self, address: u64) {
        self.write(BAR0 as u8, &address.to_le_bytes());
    }

    /// Where BAR 0 answers now: nowhere while memory decoding is off (PCI 3.0 §6.2.2).
    pub fn decoded_bar(&self) -> Option<u64> {
        let mut command = [0; 2];
        self.read(COMMAND as u8, &mut command);
        let mut bar = [0; 8];
        self.read(BAR0 as u8, &mut bar);
        let address = u64::from_le_bytes(bar) & !BAR_FLAGS;
        (u16::from_le_bytes(command) & COMMAND_MEMORY != 0 && address != 0).then_some(address)
    }

    /// Appends a capability: `body` follows the ID and the next pointer; `writable` are the bits of
    /// it that the guest may change. Answers where the capability stands.
    ///
    /// # Errors
    /// [`PciError::CapabilityTooLong`] when it does not fit.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Result<u8, PciError> {
        let at = self.next_capability;
        let end = at.saturating_add(2).saturating_add(body.len()).next_multiple_of(4);
        if end > SIZE {
            return Err(PciError::CapabilityTooLong { id });
        }
        // `end` is at most 256 and at least `at` + 2, so `at` fits a byte.
        let pointer = at as u8;
        self.set(at, &[id, 0]);
        self.set(at.saturating_add(2), body);
        self.allow(at.saturating_add(2), writable);
        self.set(self.link, &[pointer]);
        self.set(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        self.link = at.saturating_add(1);
        self.next_capability = end;
        Ok(pointer)
    }

    /// Fills `data` from `offset`; ones beyond the end.
    pub fn read(&self, offset: u8, data: &mut [u8]) {
        let registers = self.registers.iter().skip(usize::from(offset)).copied();
        for (byte, register) in data.iter_mut().zip(registers.chain(std::iter::repeat(0xff))) {
            *byte = register;
        }
    }

    /// Takes a guest's write: only the writable bits change.
    pub fn write(&mut self, offset: u8, data: &[u8]) {
        let registers = self.registers.iter_mut().zip(self.writable).skip(usize::from(offset));
        for ((register, writable), &byte) in registers.zip(data) {
            *register = (*register & !writable) | (byte & writable);
        }
    }

    /// Sets registers from our side, whatever the guest may change.
    fn set(&mut self, offset: usize, bytes: &[u8]) {
        for (register, &byte) in self.registers.iter_mut().skip(offset).zip(bytes) {
            *register = byte;
        }
    }

    fn allow(&mut self, offset: usize, bits: &[u8]) {
        for (writable, &bits) in self.writable.iter_mut().skip(offset).zip(bits) {
            *writable |= bits;
        }
    }
}

#[cfg(test)]
#[path = "config_space_test.rs"]
mod tests;
