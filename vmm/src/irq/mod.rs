//! Interrupts: global interrupt numbers (GSIs), message-signalled routes, and the eventfds on them.
//!
//! Devices see the [`MsiRoutes`] trait only. Nothing here injects: an eventfd put on a GSI becomes
//! an interrupt in the kernel, whoever signals it.

mod event;
mod gsis;

pub use event::Event;
pub use gsis::Gsis;

/// A message-signalled interrupt as the guest programmed it: where to write what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Msi {
    /// Address of the write.
    pub address: u64,
    /// Data of the write.
    pub data: u32,
}

/// Why an interrupt could not be routed.
#[derive(Debug, thiserror::Error)]
pub enum IrqError {
    /// All GSIs are taken.
    #[error("all {0} interrupt routes of the guest are in use; attach fewer devices or queues")]
    Exhausted(u32),
    /// No eventfd can be had.
    #[error("creating an eventfd")]
    Event(#[source] std::io::Error),
    /// KVM refused the routing table.
    #[error("routing GSI {gsi} to message {msi:x?}")]
    Route {
        /// The GSI.
        gsi: u32,
        /// What it was to become.
        msi: Msi,
        /// KVM's answer.
        source: std::io::Error,
    },
    /// KVM refused to connect or disconnect an eventfd.
    #[error("{doing} GSI {gsi}")]
    Irqfd {
        /// The GSI.
        gsi: u32,
        /// What was asked.
        doing: &'static str,
        /// KVM's answer.
        source: std::io::Error,
    },
}

/// What a device needs of the interrupt controller to raise MSI-X vectors.
pub trait MsiRoutes: Send + Sync {
    /// Takes a free GSI, not yet routed anywhere.
    ///
    /// # Errors
    /// [`IrqError::Exhausted`].
    fn allocate(&self) -> Result<u32, IrqError>;

    /// Gives a GSI back and forgets its route. No event may be attached to it any more.
    fn free(&self, gsi: u32);

    /// Makes `gsi` deliver `msi` from now on.
    ///
    /// # Errors
    /// [`IrqError::Route`] with what the kernel says.
    fn set_msi(&self, gsi: u32, msi: Msi) -> Result<(), IrqError>;

    /// Lets `call` raise `gsi`. What was signalled before is delivered at once.
    ///
    /// # Errors
    /// [`IrqError::Irqfd`] with what the kernel says.
    fn attach(&self, gsi: u32, call: &Event) -> Result<(), IrqError>;

    /// Stops `call` from raising `gsi`: on return no interrupt is under way any more, and what is
    /// signalled from now on stays in `call`.
    ///
    /// # Errors
    /// [`IrqError::Irqfd`] with what the kernel says.
    fn detach(&self, gsi: u32, call: &Event) -> Result<(), IrqError>;
}
