//! Virtio over PCI: what the guest's driver sees of a device (virtio 1.3, section 4.1).
//!
//! The transport negotiates, collects ring addresses and routes interrupts. It never looks into a
//! virtqueue and knows a device only by [`VirtioDevice`]; there is one, the remote one, for every
//! type in [`DeviceType`].

use std::sync::{Arc, Weak};

mod bar;
mod device_type;
mod doorbells;
pub mod features;
mod layout;
mod pci;
#[cfg(test)]
mod test_doubles;
mod transport;
mod vectors;

pub use device_type::DeviceType;
pub(crate) use device_type::{
    CONSOLE_F_EMERG_WRITE, CONSOLE_F_MULTIPORT, NET_CONFIG_FEATURES, Queues,
};
pub use doorbells::Doorbells;
pub(crate) use layout::MAX_QUEUES;
pub use pci::VirtioPci;

use crate::irq::{Event, IrqError};
use crate::pci::PciError;

/// Why a transport could not be built.
#[derive(Debug, thiserror::Error)]
pub enum VirtioError {
    /// No interrupt could be had.
    #[error("giving device {id} its interrupts")]
    Irq {
        /// The device.
        id: String,
        /// What went wrong.
        source: IrqError,
    },
    /// The function's registers could not be laid out.
    #[error("laying out the PCI function of device {id}")]
    Pci {
        /// The device.
        id: String,
        /// What went wrong.
        source: PciError,
    },
}

/// One virtqueue's end points outside the guest.
#[derive(Clone)]
pub struct QueuePort {
    /// Signalled when the guest has made buffers available.
    pub kick: Arc<Event>,
    /// Signalled when the device has used buffers.
    pub call: Arc<Event>,
    /// The largest ring the device takes.
    pub max_size: u16,
}

/// Where one virtqueue is, in guest addresses (virtio 1.3 §2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Which queue of the device.
    pub index: u16,
    /// Entries, a power of two.
    pub size: u16,
    /// Descriptor table, aligned to 16.
    pub desc: u64,
    /// Available ring, aligned to 2.
    pub avail: u64,
    /// Used ring, aligned to 4.
    pub used: u64,
}

/// All that a device needs to start: what the driver accepted, and the rings it enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// Features that the driver accepted, a subset of the offered.
    pub features: u64,
    /// Enabled rings in the order of their index.
    pub rings: Vec<Ring>,
}

/// A device behind a transport. Called on vCPU threads, so no method waits for anyone.
pub trait VirtioDevice: Send + Sync {
    /// The user's name of the device.
    fn id(&self) -> &str;
    /// What kind of device it is.
    fn device_type(&self) -> DeviceType;
    /// Features offered to the driver.
    fn features(&self) -> u64;
    /// The device's queues.
    fn queues(&self) -> &[QueuePort];
    /// Device-specific configuration space as it is now.
    fn config(&self) -> Vec<u8>;
    /// The driver changed bytes of configuration space.
    fn write_config(&self, offset: usize, data: &[u8]);
    /// The driver set DRIVER_OK. Kicks may come from now on.
    fn start(&self, activation: Activation);
    /// The driver reset a started device, which answers with [`DeviceEvents::reset_done`].
    fn reset(&self);
    /// Tells the device who sits before it from now on. What was there before has gone.
    fn attach(&self, events: Weak<dyn DeviceEvents>);
}

/// What a device tells the transport. Called on the device's thread.
pub trait DeviceEvents: Send + Sync {
    /// The device has stopped after a reset and touches neither rings nor buffers any more.
    fn reset_done(&self);
    /// Configuration space has new contents; with `announce`, the driver is told.
    fn config_changed(&self, config: Vec<u8>, announce: bool);
    /// The device can't go on until the driver resets it (virtio 1.3 §2.1.2).
    fn needs_reset(&self);
}
