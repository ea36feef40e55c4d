//! The console device: a byte stream each way behind a virtio-console device (virtio 1.3 §5.3).
//! Sockets to the front-end, rings and signals are the shared crate's.
//!
//! ```text
//!  guest ─► transmit worker ─► pipe ─► line thread ─► terminal, pty, socket or file
//!  guest ◄─ receive worker  ◄─ pipe ◄─ line thread ◄─┘
//! ```
//!
//! The pipes are all that the workers know of the outside, so a ring can stop and start, and
//! somebody can attach and detach, without either noticing the other.

mod backlog;
mod device;
mod line;
mod options;
mod outlet;
mod outlets;
mod receive;
mod terminal;
mod transmit;
mod window;

pub use device::{CAPABILITIES, Console};
pub use options::Options;
pub use outlet::OpenError;
