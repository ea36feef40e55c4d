//! PCI: one segment with one bus, its configuration space by ECAM and by ports, and the registers
//! every function has.
//!
//! There are no bridges and no INTx lines. What a function does behind its BAR is its own affair.

mod access;
mod config_space;
mod host_bridge;
mod msix;
mod segment;

pub use access::{CONFIG_PORTS, ECAM_BUS_SIZE};
pub use config_space::{ConfigSpace, Ids};
pub use msix::Msix;
pub use segment::{Address, PciSegment, Windows};

/// Why a device could not be put on the bus.
#[derive(Debug, thiserror::Error)]
pub enum PciError {
    /// All functions are taken.
    #[error("the PCI bus is full: it holds {0} devices")]
    BusFull(usize),
    /// No address space for a BAR.
    #[error("no room for a BAR of {size:#x} bytes in the PCI windows {windows:x?}")]
    WindowFull {
        /// Size of the BAR.
        size: u64,
        /// Where it could have been.
        windows: Windows,
    },
    /// The capabilities of a function are too long.
    #[error("capability {id:#x} does not fit in the configuration space")]
    CapabilityTooLong {
        /// Capability ID.
        id: u8,
    },
}

/// A function on the bus. Called on vCPU threads.
pub trait PciFunction: Send + Sync {
    /// Fills `data` from configuration space. `offset` and length stay within 256 bytes.
    fn read_config(&self, offset: u8, data: &mut [u8]);

    /// Takes a write to configuration space, which may move the BAR.
    fn write_config(&self, offset: u8, data: &[u8]);

    /// Size of the function's memory BAR (BAR 0, 64-bit), a power of two; none if it has none.
    fn bar_size(&self) -> Option<u64>;

    /// Writes the BAR as firmware would, before the guest starts.
    fn place_bar(&self, address: u64);
}
