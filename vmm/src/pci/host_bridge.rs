//! The host bridge at 00:00.0: identity only. It forwards nothing that must be programmed.

use std::sync::{Mutex, PoisonError};

use super::{ConfigSpace, Ids, PciFunction};

/// Red Hat's generic PCIe host bridge, which no driver binds to and no quirk applies to.
const IDS: Ids = Ids {
    vendor: 0x1b36,
    device: 0x0008,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    class: 0x06_00_00,
    revision: 0,
};

pub(super) struct HostBridge(Mutex<ConfigSpace>);

impl HostBridge {
    pub(super) fn new() -> Self {
        Self(Mutex::new(ConfigSpace::new(&IDS)))
    }
}

impl PciFunction for HostBridge {
    fn read_config(&self, offset: u8, data: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
    }

    fn write_config(&self, offset: u8, data: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
    }

    fn bar_size(&self) -> Option<u64> {
        None
    }

    fn place_bar(&self, _address: u64) {}
}
