//! Guest writes that become eventfd signals in the kernel, without an exit to the VMM.

use std::io;

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};

use crate::irq::Event;

/// Connects guest addresses with kick events.
pub trait Doorbells: Send + Sync {
    /// Lets a write of any width at `address` signal `kick`.
    ///
    /// # Errors
    /// What the kernel says.
    fn attach(&self, address: u64, kick: &Event) -> io::Result<()>;

    /// Undoes [`Doorbells::attach`].
    ///
    /// # Errors
    /// What the kernel says.
    fn detach(&self, address: u64, kick: &Event) -> io::Result<()>;
}

impl Doorbells for VmFd {
    fn attach(&self, address: u64, kick: &Event) -> io::Result<()> {
        // Without a data match the length is 0, "any": KVM then need not decode the instruction.
        self.register_ioevent(kick.eventfd(), &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(io::Error::from)
    }

    fn detach(&self, address: u64, kick: &Event) -> io::Result<()> {
        self.unregister_ioevent(kick.eventfd(), &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(io::Error::from)
    }
}
