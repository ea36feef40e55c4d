//! The vhost-user front-end: devices that are other processes.
//!
//! A [`RemoteDevice`] lives as long as the VMM, over any number of guest boots. Its thread
//! `dev-ID` does all talking, each exchange with a deadline; what the guest asks for is left in a
//! mailbox and never waits. In steady state the thread sleeps: kicks and calls go from kernel to
//! process.

mod back_channel;
mod device;
mod error;
mod handover;
mod inflight;
mod life;
mod loudness;
mod mailbox;
mod memory;
mod offer;
mod outage;
mod peer;
mod policy;
mod process;
mod queue;
mod replay;
mod report;
mod rings;
mod session;
mod status;
mod swap;
#[cfg(test)]
mod test_doubles;
#[cfg(test)]
mod test_rig;
mod thread;
mod wire;

pub use device::RemoteDevice;
pub use error::VhostUserError;
pub use peer::{Attempt, PeerSource, SocketPeer, StreamPeer, try_connect};
pub use policy::{OnDisconnect, Policy, PolicyError};
pub use report::{
    DeviceEvent, DeviceState, DeviceStatus, EventKind, Owes, PeerIdentity, QueueStatus, Vmm,
};

use std::time::Duration;

use crate::virtio::DeviceType;

/// How long a back-end may take over a handshake, or over taking a device's rings.
#[cfg(not(test))]
pub const REPLY_DEADLINE: Duration = Duration::from_secs(5);
/// How long it may take to give rings back, which includes finishing what is in flight.
#[cfg(not(test))]
pub const STOP_DEADLINE: Duration = Duration::from_secs(10);

// Tests wait for them.
#[cfg(test)]
pub(super) const REPLY_DEADLINE: Duration = Duration::from_millis(400);
#[cfg(test)]
pub(super) const STOP_DEADLINE: Duration = Duration::from_millis(400);

/// A device as the user asked for it.
pub struct DeviceSpec {
    /// The user's name of it; names its thread and stands in every message about it.
    pub id: String,
    /// What it is expected to be.
    pub device_type: DeviceType,
    /// Where its back-ends come from.
    pub peer: Box<dyn PeerSource>,
    /// What becomes of the machine while there is none.
    pub policy: Policy,
    /// Queues to offer; if none is given, what suits the type, the back-end and `vcpus`.
    pub queues: Option<u16>,
    /// Largest size of each queue; if none is given, what suits the type.
    pub queue_size: Option<u16>,
    /// vCPUs of the guest, for types that have a queue for each.
    pub vcpus: u16,
    /// How long to wait for a back-end that is not there yet; for ever if it is not said.
    pub connect_timeout: Option<Duration>,
}
