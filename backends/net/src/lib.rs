//! A network device for a guest (virtio 1.3 §5.1) on a TAP interface of the host.
//!
//! Packets move with one copy, between the TAP and the guest's own buffers. Nothing here knows
//! sockets or vhost-user; that is `atoll-backend`.

mod config_space;
mod device;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod header;
mod mac;
mod offload;
mod options;
mod receive;
mod tap;
mod transmit;

pub use device::{CAPABILITIES, Net};
pub use mac::Mac;
pub use options::Options;
pub use tap::{Tap, TapError};
