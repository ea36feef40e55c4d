//! The two ways to configuration space: memory-mapped (PCIe 5.0 §7.2.2, ECAM) and through the
//! ports 0xcf8 and 0xcfc (PCI 3.0 §3.2.2.3.2).
//!
//! Both only find the function and the offset; neither knows a register.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::segment::{Address, PciSegment};
use crate::bus::BusDevice;

/// The ports of configuration mechanism #1: address at 0xcf8, data at 0xcfc.
pub const CONFIG_PORTS: Range<u64> = 0xcf8..0xd00;

/// Bytes of ECAM per bus: 4 KiB for each of 256 functions.
pub const ECAM_BUS_SIZE: u64 = 1 << 20;

/// Bits of a function's 4 KiB in ECAM.
const FUNCTION_SHIFT: u32 = 12;
const FUNCTION_MASK: u64 = (1 << FUNCTION_SHIFT) - 1;

/// Configuration space of bus 0 in memory.
pub(super) struct Ecam(Arc<PciSegment>);

impl Ecam {
    pub(super) fn new(segment: Arc<PciSegment>) -> Self {
        Self(segment)
    }
}

/// Where an access to ECAM goes. Conventional functions end at 256 bytes: what lies beyond, and
/// other buses, is nowhere.
fn ecam_target(offset: u64, len: usize) -> Option<(Address, u8)> {
    let devfn = u8::try_from(offset >> FUNCTION_SHIFT).ok()?;
    let register = u8::try_from(offset & FUNCTION_MASK).ok()?;
    fits(register, len).then(|| (Address::from_devfn(devfn), register))
}

fn fits(register: u8, len: usize) -> bool {
    usize::from(register).saturating_add(len) <= 256
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match ecam_target(offset, data.len()) {
            Some((address, register)) => self.0.read(address, register, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((address, register)) = ecam_target(offset, data.len()) {
            self.0.write(address, register, data);
        }
    }
}

const ADDRESS_PORT: u64 = 0;
const DATA_PORT: u64 = 4;
const ENABLE: u32 = 1 << 31;
/// Bus, device, function and register; the rest is reserved and reads zero.
const ADDRESS_BITS: u32 = ENABLE | 0x00ff_fffc;

/// Configuration mechanism #1.
pub(super) struct ConfigPorts {
    segment: Arc<PciSegment>,
    /// What was last written to the address port.
    selected: AtomicU32,
}

impl ConfigPorts {
    pub(super) fn new(segment: Arc<PciSegment>) -> Self {
        Self { segment, selected: AtomicU32::new(0) }
    }

    /// Where an access at `offset` in the port range goes, if it is to the data port.
    fn target(&self, offset: u64, len: usize) -> Option<(Address, u8)> {
        let selected = self.selected.load(Ordering::Relaxed);
        let byte = u8::try_from(offset.checked_sub(DATA_PORT)?).ok()?;
        let [register, devfn, bus, _] = selected.to_le_bytes();
        let register = register.checked_add(byte)?;
        let ours = selected & ENABLE != 0 && bus == 0 && fits(register, len);
        ours.then(|| (Address::from_devfn(devfn), register))
    }
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if offset == ADDRESS_PORT && data.len() == 4 {
            data.copy_from_slice(&self.selected.load(Ordering::Relaxed).to_le_bytes());
        } else if let Some((address, register)) = self.target(offset, data.len()) {
            self.segment.read(address, register, data);
        } else {
            data.fill(0xff);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match (offset, <[u8; 4]>::try_from(data)) {
            // Only whole dwords reach the address register; narrower ones belong to other ports.
            (ADDRESS_PORT, Ok(address)) => {
                let selected = u32::from_le_bytes(address) & ADDRESS_BITS;
                self.selected.store(selected, Ordering::Relaxed);
            }
            _ => {
                if let Some((address, register)) = self.target(offset, data.len()) {
                    self.segment.write(address, register, data);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "access_test.rs"]
mod tests;
