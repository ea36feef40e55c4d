//! The console device: a byte stream each way behind a virtio-console device (virtio 1.3 §5.3).
//! Sockets to the front-end, rings and signals are the shared crate's.
//!
//! ```text
//!  guest ─► transmit worker ─► history ─► terminal, pty, socket or file
//!  guest ◄─ receive worker  ◄─ keys    ◄─┘
//! ```
//!
//! A line is what is between a port's two rings and its outlet, whoever carries it: the rings' threads
//! while they run, else a thread of the line's own. So a ring can stop and start, and somebody can attach
//! and detach, without either noticing the other. There is a line for each port; which ports there are,
//! and which are open, is what the control queues are for.

mod carrier;
mod control;
mod control_queues;
mod device;
mod history;
mod keys;
mod leave;
mod line;
mod options;
mod outlet;
mod outlets;
mod part;
mod port;
mod ports;
mod readers;
mod receive;
mod transmit;
mod watch;
mod window;

pub use device::{CAPABILITIES, Console};
pub use leave::exit_code;
pub use options::{Options, PortOption};
pub use outlet::OpenError;
