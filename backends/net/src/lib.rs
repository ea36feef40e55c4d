//! A network device for a guest (virtio 1.3 §5.1) on a TAP interface of the host, or on the
//! user-mode network of `passt`, which takes no privilege.
//!
//! Packets move with one copy between the TAP and the guest's own buffers. Nothing here knows
//! sockets or vhost-user; that is `atoll-backend`.

mod attachment;
mod batch;
mod command;
mod config_space;
mod control;
mod control_queue;
mod datagrams;
mod device;
mod filter;
mod forward;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod gate;
mod header;
mod keeper;
mod kept_choice;
mod limit_options;
mod link;
mod mac;
mod offload;
mod one_by_one;
mod options;
mod pair;
mod passt;
mod plug;
mod posted;
mod receive;
mod stream;
mod stream_server;
mod tap;
mod tap_error;
mod transmit;

pub use datagrams::DatagramError;
pub use device::{CAPABILITIES, Net, OpenError};
pub use forward::{Forward, NotForward};
pub use limit_options::LimitOptions;
pub use link::LinkError;
pub use mac::Mac;
pub use options::{LinkState, Options};
pub use passt::{PasstError, keep as keep_passt};
pub use plug::keep as keep_stream;
pub use tap::Tap;
pub use tap_error::TapError;
