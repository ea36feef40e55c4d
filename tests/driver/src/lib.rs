//! A virtio driver in software: one end of a vhost-user socket and the guest's side of the rings.
//!
//! It lets tests, fuzz targets and benchmarks drive a device process without a virtual machine.
//! It knows how to be polite ([`Queue::submit`]) and how to be hostile ([`Ring`] writes any bytes
//! anywhere, [`Wire`] sends any message). It does not judge what a device answers.
//!
//! ```no_run
//! use atoll_driver::{Buffer, FrontEnd, Memory, TIMEOUT, VERSION_1};
//!
//! # fn main() -> Result<(), atoll_driver::Error> {
//! let mut device = FrontEnd::connect("/run/vm/blk.sock", Memory::new(16 << 20)?)?;
//! device.negotiate(VERSION_1)?;
//! let mut queue = device.start_queue(0, 256)?;
//! let request = device.memory().put(b"hello")?;
//! let answer = device.memory().allocate(512, 1)?;
//! queue.submit(&[Buffer::readable(request, 5), Buffer::writable(answer, 512)])?;
//! let used = queue.wait(TIMEOUT)?;
//! let bytes = device.memory().get(answer, used.len as usize)?;
//! # Ok(())
//! # }
//! ```

mod abuse;
mod blk;
mod confinement;
mod console;
mod error;
mod front_end;
mod load;
mod memory;
mod net;
mod process;
mod queue;
mod refusal;
mod ring;
mod service_manager;
mod steady;
mod survivor;
mod watchdog;
mod wire;

use std::time::Duration;

pub use abuse::{Abuse, HostileChain};
pub use blk::BlkRequest;
pub use confinement::Confinement;
pub use console::ConsoleGuest;
pub use error::Error;
pub use front_end::{FrontEnd, PROTOCOL_FEATURES};
pub use load::{BlkLoad, Measured};
pub use memory::Memory;
pub use net::{NET_HEADER, NetHeader};
pub use process::{Footprint, Process};
pub use queue::{Buffer, Queue, Used};
pub use refusal::{Refusal, without};
pub use ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, Ring};
pub use service_manager::{ServiceManager, pass_fd};
pub use steady::assert_steady;
pub use survivor::Survivor;
pub use vhost::vhost_user::message::VhostUserProtocolFeatures as ProtocolFeatures;
pub use wire::{Message, Wire};

/// VIRTIO_F_VERSION_1: the device follows virtio 1.0 and newer.
pub const VERSION_1: u64 = 1 << 32;
/// VIRTIO_RING_F_INDIRECT_DESC: a descriptor may point at a table of descriptors.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_RING_F_EVENT_IDX: each side says at which index it wants to be notified.
pub const EVENT_IDX: u64 = 1 << 29;

/// Long enough for any answer of a device process that lives, on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(10);
