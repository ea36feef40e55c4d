//! The one PCI segment: which function answers at which device number, and where BARs go at boot.
//!
//! Does what firmware would: every BAR gets an address before the guest starts, and a guest that
//! knows better may change it.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::access::{ConfigPorts, Ecam};
use super::host_bridge::HostBridge;
use super::{PciError, PciFunction};
use crate::bus::BusDevice;

const DEVICES: u8 = 32;
const FUNCTIONS: u8 = 8;
/// Offset and value that tell software to look beyond function 0.
const HEADER_TYPE: u8 = 0x0e;
const MULTIFUNCTION: u8 = 1 << 7;

/// Address space for BARs, as ACPI tells it to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Below 4 GiB, tried first: any guest can reach it.
    pub low: Range<u64>,
    /// Above all memory.
    pub high: Range<u64>,
}

/// Device and function number on bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    device: u8,
    function: u8,
}

impl Address {
    /// The address in the 8 bits below the bus number.
    pub(super) fn from_devfn(devfn: u8) -> Self {
        Self { device: devfn >> 3, function: devfn & 7 }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00:{:02x}.{}", self.device, self.function)
    }
}

struct Slots {
    functions: BTreeMap<Address, Arc<dyn PciFunction>>,
    /// What is left of the windows.
    free: Windows,
}

/// Segment 0, with a host bridge at 00:00.0.
pub struct PciSegment {
    windows: Windows,
    slots: Mutex<Slots>,
}

impl PciSegment {
    /// A segment with its host bridge only, whose BARs will be placed in `windows`.
    pub fn new(windows: Windows) -> Arc<Self> {
        let bridge: Arc<dyn PciFunction> = Arc::new(HostBridge::new());
        let functions = BTreeMap::from([(Address { device: 0, function: 0 }, bridge)]);
        let free = windows.clone();
        Arc::new(Self { windows, slots: Mutex::new(Slots { functions, free }) })
    }

    /// Puts a function on the bus and places its BAR.
    ///
    /// Every device number is used before a second function anywhere.
    ///
    /// # Errors
    /// [`PciError::BusFull`] and [`PciError::WindowFull`].
    pub fn add(&self, function: Arc<dyn PciFunction>) -> Result<Address, PciError> {
        let mut slots = self.slots();
        let address = (0..FUNCTIONS)
            .flat_map(|function| (0..DEVICES).map(move |device| Address { device, function }))
            .find(|address| !slots.functions.contains_key(address))
            .ok_or(PciError::BusFull(slots.functions.len()))?;
        if let Some(size) = function.bar_size() {
            let Windows { low, high } = &mut slots.free;
            let bar = take(low, size)
                .or_else(|| take(high, size))
                .ok_or_else(|| PciError::WindowFull { size, windows: self.windows.clone() })?;
            function.place_bar(bar);
        }
        slots.functions.insert(address, function);
        Ok(address)
    }

    /// The memory-mapped way to configuration space of bus 0, [`super::ECAM_BUS_SIZE`] bytes.
    pub fn ecam(self: &Arc<Self>) -> Arc<dyn BusDevice> {
        Arc::new(Ecam::new(Arc::clone(self)))
    }

    /// The way to configuration space through [`super::CONFIG_PORTS`].
    pub fn config_ports(self: &Arc<Self>) -> Arc<dyn BusDevice> {
        Arc::new(ConfigPorts::new(Arc::clone(self)))
    }

    /// Reads configuration space; ones where no function is.
    pub(super) fn read(&self, address: Address, offset: u8, data: &mut [u8]) {
        let Some(function) = self.function(address) else {
            return data.fill(0xff);
        };
        function.read_config(offset, data);
        if address.function == 0 && self.is_multifunction(address.device) {
            let header_type = HEADER_TYPE.checked_sub(offset).map(usize::from);
            if let Some(byte) = header_type.and_then(|at| data.get_mut(at)) {
                *byte |= MULTIFUNCTION;
            }
        }
    }

    /// Writes configuration space; lost where no function is.
    pub(super) fn write(&self, address: Address, offset: u8, data: &[u8]) {
        if let Some(function) = self.function(address) {
            function.write_config(offset, data);
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn function(&self, address: Address) -> Option<Arc<dyn PciFunction>> {
        self.slots().functions.get(&address).map(Arc::clone)
    }

    fn is_multifunction(&self, device: u8) -> bool {
        self.slots().functions.contains_key(&Address { device, function: 1 })
    }
}

/// Takes `size` bytes, aligned to their size, from the start of what is free.
fn take(free: &mut Range<u64>, size: u64) -> Option<u64> {
    let start = free.start.checked_next_multiple_of(size)?;
    let end = start.checked_add(size).filter(|&end| end <= free.end)?;
    free.start = end;
    Some(start)
}

#[cfg(test)]
#[path = "segment_test.rs"]
mod tests;
