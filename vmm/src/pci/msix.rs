//! MSI-X registers of a function (PCI 3.0 §6.8.2): message control and the vector table.
//!
//! Pure state. Which vectors can fire and with which message is read off here; whoever owns the
//! interrupt sources acts on it, and keeps the pending bits, which are a matter of the sources.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use crate::irq::Msi;

/// Bytes of one vector in the table.
pub(crate) const ENTRY_SIZE: u64 = 16;

const MESSAGE_ADDRESS: u64 = 0;
const MESSAGE_UPPER_ADDRESS: u64 = 4;
const MESSAGE_DATA: u64 = 8;
const VECTOR_CONTROL: u64 = 12;
const VECTOR_MASKED: u32 = 1;

const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_FUNCTION_MASK: u16 = 1 << 14;

struct Entry {
    msi: Msi,
    masked: bool,
}

/// MSI-X state of one function.
pub struct Msix {
    entries: Vec<Entry>,
    enabled: bool,
    function_masked: bool,
}

impl Msix {
    /// Registers after reset: MSI-X off, every vector masked.
    pub fn new(vectors: u16) -> Self {
        let entry = || Entry { msi: Msi::default(), masked: true };
        Self {
            entries: (0..vectors).map(|_| entry()).collect(),
            enabled: false,
            function_masked: false,
        }
    }

    /// Bits of message control that the guest may change.
    pub const CONTROL_WRITABLE: u16 = CONTROL_ENABLE | CONTROL_FUNCTION_MASK;

    /// Message control as the capability shows it at first: table size less one.
    pub fn initial_control(vectors: u16) -> u16 {
        vectors.saturating_sub(1)
    }

    /// Takes what message control holds now.
    pub fn set_control(&mut self, control: u16) {
        self.enabled = control & CONTROL_ENABLE != 0;
        self.function_masked = control & CONTROL_FUNCTION_MASK != 0;
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> u16 {
        u16::try_from(self.entries.len()).unwrap_or(u16::MAX)
    }

    /// The message of a vector that may fire now, none while it is masked.
    pub fn live(&self, vector: u16) -> Option<Msi> {
        let entry = self.entries.get(usize::from(vector))?;
        (self.enabled && !self.function_masked && !entry.masked).then_some(entry.msi)
    }

    /// Reads the table at `offset`.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        for (byte, step) in data.iter_mut().zip(0_u64..) {
            let at = offset.wrapping_add(step);
            let dword = self.dword(at & !3).to_le_bytes();
            *byte = dword.get((at & 3) as usize).copied().unwrap_or(0);
        }
    }

    /// Writes the table at `offset` and answers the vector that may have changed.
    ///
    /// Only aligned dwords and qwords are defined (PCI 3.0 §6.8.2); others are ignored.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) -> Option<u16> {
        if let Ok(dword) = <[u8; 4]>::try_from(data) {
            (offset & 3 == 0).then_some(())?;
            self.set_dword(offset, u32::from_le_bytes(dword))
        } else if let Ok(qword) = <[u8; 8]>::try_from(data) {
            (offset & 7 == 0).then_some(())?;
            let qword = u64::from_le_bytes(qword);
            self.set_dword(offset, qword as u32)?;
            self.set_dword(offset.checked_add(4)?, (qword >> 32) as u32)
        } else {
            None
        }
    }

    fn dword(&self, offset: u64) -> u32 {
        let (vector, field) = split(offset);
        let Some(entry) = vector.and_then(|vector| self.entries.get(usize::from(vector))) else {
            return 0;
        };
        match field {
            MESSAGE_ADDRESS => entry.msi.address as u32,
            MESSAGE_UPPER_ADDRESS => (entry.msi.address >> 32) as u32,
            MESSAGE_DATA => entry.msi.data,
            _ => u32::from(entry.masked),
        }
    }

    fn set_dword(&mut self, offset: u64, value: u32) -> Option<u16> {
        let (vector, field) = split(offset);
        let vector = vector?;
        let entry = self.entries.get_mut(usize::from(vector))?;
        let address = &mut entry.msi.address;
        match field {
            MESSAGE_ADDRESS => *address = (*address & !0xffff_ffff) | u64::from(value),
            MESSAGE_UPPER_ADDRESS => *address = (*address & 0xffff_ffff) | u64::from(value) << 32,
            MESSAGE_DATA => entry.msi.data = value,
            VECTOR_CONTROL => entry.masked = value & VECTOR_MASKED != 0,
            _ => return None,
        }
        Some(vector)
    }
}

/// The vector and the field in it that `offset` is about.
fn split(offset: u64) -> (Option<u16>, u64) {
    (u16::try_from(offset / ENTRY_SIZE).ok(), offset % ENTRY_SIZE)
}

#[cfg(test)]
#[path = "msix_test.rs"]
mod tests;
