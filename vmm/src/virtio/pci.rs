//! A virtio device as a PCI function: configuration space, and where the BAR is mapped.
//!
//! The guest may move the BAR at any time; the bus range and the doorbells move with it.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tap::TapFallible;
use tracing::{debug, warn};

use super::bar::Bar;
use super::layout::{
    BAR_SIZE, CAPABILITY_MSIX, CAPABILITY_VENDOR, MSIX_CONTROL, PCI_ACCESS_BAR, PCI_ACCESS_DATA,
    PCI_ACCESS_LENGTH, PCI_ACCESS_OFFSET, capabilities, msix_capability, notify_offset,
    pci_access_capability,
};
use super::{DeviceEvents, Doorbells, VirtioDevice, VirtioError};
use crate::bus::{Bus, BusDevice};
use crate::irq::MsiRoutes;
use crate::pci::{ConfigSpace, Ids, PciError, PciFunction};

/// virtio 1.3 §4.1.2: vendor, and the device ID to which the device type is added.
const VENDOR: u16 = 0x1af4;
const DEVICE_BASE: u16 = 0x1040;
/// §4.1.2.1: a non-transitional device says 1 or more.
const REVISION: u8 = 1;
/// §4.1.2.1: a non-transitional device's subsystem ID should be 0x40 or more.
const SUBSYSTEM: u16 = 0x1100;

struct Config {
    space: ConfigSpace,
    /// Where the MSI-X capability and the PCI access capability stand.
    msix: u8,
    access: u8,
    /// Where the BAR is mapped.
    mapped: Option<u64>,
    /// Whether the log has it that a doorbell is missing; a guest that moves the BAR could fill it.
    doorbells_told: bool,
}

/// A virtio device on the PCI bus of one guest boot.
///
/// Dropping it takes it off the memory bus, its doorbells and its interrupts; the device behind it
/// lives on.
pub struct VirtioPci {
    bar: Arc<Bar>,
    device: Arc<dyn VirtioDevice>,
    config: Mutex<Config>,
    /// Weak, since the bus reaches back here through configuration space.
    mmio: Weak<Bus>,
    doorbells: Arc<dyn Doorbells>,
}

impl VirtioPci {
    /// A function for `device`, not mapped anywhere yet.
    ///
    /// # Errors
    /// [`VirtioError`] when interrupts or configuration space don't suffice.
    pub fn new(
        device: Arc<dyn VirtioDevice>,
        routes: Arc<dyn MsiRoutes>,
        doorbells: Arc<dyn Doorbells>,
        mmio: &Arc<Bus>,
    ) -> Result<Arc<Self>, VirtioError> {
        let bar = Bar::new(Arc::clone(&device), routes)
            .map_err(|source| VirtioError::Irq { id: device.id().to_owned(), source })?;
        let config = lay_out(&*device, bar.vectors())
            .map_err(|source| VirtioError::Pci { id: device.id().to_owned(), source })?;
        let bar = Arc::new(bar);
        let events: Arc<dyn DeviceEvents> = bar.clone();
        device.attach(Arc::downgrade(&events));
        Ok(Arc::new(Self {
            bar,
            device,
            config: Mutex::new(config),
            mmio: Arc::downgrade(mmio),
            doorbells,
        }))
    }

    fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maps the BAR where configuration space says.
    fn follow_bar(&self, config: &mut Config) {
        let wanted = config.space.decoded_bar();
        if wanted == config.mapped {
            return;
        }
        if let Some(address) = config.mapped.take() {
            self.unmap(address);
        }
        config.mapped = wanted.filter(|&address| self.map(address));
        if let Some(address) = config.mapped {
            self.hang_doorbells(config, address);
        }
    }

    /// Whether the BAR now answers at `address`.
    fn map(&self, address: u64) -> bool {
        let Some(bus) = self.mmio.upgrade() else { return false };
        let bar: Arc<dyn BusDevice> = self.bar.clone();
        bus.insert("virtio BAR", address, BAR_SIZE, bar)
            .tap_err(|error| debug!(device = self.device.id(), %error, "BAR not mapped"))
            .is_ok()
    }

    fn hang_doorbells(&self, config: &mut Config, address: u64) {
        for (queue, index) in self.device.queues().iter().zip(0..) {
            let address = address.wrapping_add(notify_offset(index));
            // Without its doorbell a queue still works: its kicks exit to the BAR.
            if let Err(error) = self.doorbells.attach(address, &queue.kick)
                && !std::mem::replace(&mut config.doorbells_told, true)
            {
                warn!(device = self.device.id(), queue = index, %error, "no doorbell");
            }
        }
    }

    fn unmap(&self, address: u64) {
        for (queue, index) in self.device.queues().iter().zip(0..) {
            let _ = self
                .doorbells
                .detach(address.wrapping_add(notify_offset(index)), &queue.kick)
                .tap_err(|error| debug!(device = self.device.id(), queue = index, %error));
        }
        if let Some(bus) = self.mmio.upgrade() {
            bus.remove(address);
        }
    }

    /// What the PCI access capability points at: an offset in the BAR and a width, if `offset` in
    /// configuration space is its data window (virtio 1.3 §4.1.4.9).
    fn window(config: &Config, offset: u8) -> Option<(u64, usize)> {
        let register = |at: u8| {
            let mut dword = [0; 4];
            config.space.read(config.access.saturating_add(at), &mut dword);
            u32::from_le_bytes(dword)
        };
        let bar = register(PCI_ACCESS_BAR) & 0xff;
        let at = u64::from(register(PCI_ACCESS_OFFSET));
        let width = register(PCI_ACCESS_LENGTH);
        let valid = offset == config.access.saturating_add(PCI_ACCESS_DATA)
            && bar == 0
            && matches!(width, 1 | 2 | 4)
            && at.is_multiple_of(u64::from(width))
            && at < BAR_SIZE;
        valid.then_some((at, width as usize))
    }
}

impl PciFunction for VirtioPci {
    fn read_config(&self, offset: u8, data: &mut [u8]) {
        let config = self.config();
        config.space.read(offset, data);
        let window = Self::window(&config, offset);
        drop(config);
        if let Some((at, width)) = window
            && let Some(data) = data.get_mut(..width)
        {
            self.bar.read(at, data);
        }
    }

    fn write_config(&self, offset: u8, data: &[u8]) {
        let mut config = self.config();
        config.space.write(offset, data);
        self.follow_bar(&mut config);
        let mut control = [0; 2];
        config.space.read(config.msix.saturating_add(MSIX_CONTROL), &mut control);
        let touched = u16::from(offset)..u16::from(offset).saturating_add(data.len() as u16);
        let first = u16::from(config.msix.saturating_add(MSIX_CONTROL));
        let window = Self::window(&config, offset);
        if touched.start <= first + 1 && first < touched.end {
            self.bar.set_msix_control(u16::from_le_bytes(control));
        }
        drop(config);
        if let Some((at, width)) = window
            && let Some(data) = data.get(..width)
        {
            self.bar.write(at, data);
        }
    }

    fn bar_size(&self) -> Option<u64> {
        Some(BAR_SIZE)
    }

    fn place_bar(&self, address: u64) {
        let mut config = self.config();
        config.space.place_bar(address);
        self.follow_bar(&mut config);
    }
}

impl Drop for VirtioPci {
    fn drop(&mut self) {
        let mapped = self.config().mapped.take();
        if let Some(address) = mapped {
            self.unmap(address);
        }
    }
}

/// Configuration space of a virtio function (virtio 1.3 §4.1.2 and §4.1.4).
fn lay_out(device: &dyn VirtioDevice, vectors: u16) -> Result<Config, PciError> {
    let device_type = device.device_type();
    let mut space = ConfigSpace::new(&Ids {
        vendor: VENDOR,
        device: DEVICE_BASE.wrapping_add(device_type.id()),
        subsystem_vendor: VENDOR,
        subsystem: SUBSYSTEM,
        class: device_type.class(),
        revision: REVISION,
    });
    space.add_bar(BAR_SIZE);
    let (body, writable) = msix_capability(vectors);
    let msix = space.add_capability(CAPABILITY_MSIX, &body, &writable)?;
    let queues = vectors.saturating_sub(1);
    for capability in capabilities(queues, device.config().len()) {
        space.add_capability(CAPABILITY_VENDOR, &capability.body, &capability.writable)?;
    }
    let access = pci_access_capability();
    let access = space.add_capability(CAPABILITY_VENDOR, &access.body, &access.writable)?;
    Ok(Config { space, msix, access, mapped: None, doorbells_told: false })
}

#[cfg(test)]
#[path = "pci_test.rs"]
mod tests;
