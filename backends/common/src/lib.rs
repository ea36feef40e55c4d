//! What every Atoll device process is made of: command line, sockets, the vhost-user session,
//! split virtqueues and the loop that serves them. It knows no device.
//!
//! A device implements [`Device`] (what it is) and [`Worker`] (how one queue is served), and its
//! `main` is three lines: [`parse`] the options, open the device, [`run`] it.
//!
//! ```text
//!  main thread                     one thread per started ring, or pair of them
//!  session: one message at a time  ┌─► vringN: next → parse → act → finish → complete
//!     │  serve(Vring) ─────────────┤
//!     └─ stop ◄─── (Vring) ────────┘
//! ```
//!
//! With a control socket, a thread more tells what was counted, and turns what a device has on its
//! [`Panel`]; rings never wait for it.
//!
//! The ring's thread owns its [`Vring`] while it runs and hands it back when it stops, so the
//! data path has no locks. Where two queues are the two directions of one thing one thread has both
//! ([`Device::pairs_queues`]).

mod args;
mod back_channel;
mod buffers;
mod carried;
mod chain;
mod control;
mod descriptor_table;
mod device;
mod direct;
mod early_enable;
mod error;
mod event;
mod file_ring;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod inflight;
pub mod kill_point;
mod limits;
mod listen;
mod logging;
mod lost_memory;
mod memory;
mod metrics;
mod named_limits;
mod panel;
mod pieces;
mod polling;
mod preemption;
mod queue;
mod reader;
mod region_cache;
mod ring_loop;
mod ring_memory;
mod ring_thread;
mod ring_watch;
mod rings;
mod room;
mod run;
mod sandbox;
mod serve;
mod served_ring;
mod service;
mod session;
mod shared;
mod signals;
#[cfg(test)]
mod test_ring;
#[cfg(test)]
mod test_worker;
mod vectored;
mod vring;
mod wake_ups;
mod writer;

pub use args::{Args, Capabilities, parse};
pub use back_channel::ConfigChange;
pub use buffers::{Reader, Writer};
pub use chain::{Chain, ChainFault};
pub use device::{ConfigRefused, Device, DeviceError, Identity, Wait, Worker};
pub use direct::{DirectAlignment, make_direct};
pub use file_ring::{FileRing, Transfer, Transferred};
pub use inflight::{InflightError, Kept};
pub use limits::{LimitArgs, LimitChange, LimitError, Limiter, Limits, limit};
pub use panel::{Counter, Limited, Link, Panel, Resize, Terminal};
pub use reader::write_packet;
pub use ring_memory::RingPlaceError;
pub use run::run;
pub use sandbox::{OwnName, Sysno, SystemCall, User, bind};
pub use shared::MapError;
pub use vring::{Vring, VringError};
pub use writer::{Received, read_packet};
