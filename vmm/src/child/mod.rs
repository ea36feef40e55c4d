//! Backends that we start: found, started on one end of a socket pair, restarted when they die,
//! stopped and reaped.
//!
//! What is said over the socket is not known here. A child never outlives us: the kernel ends it
//! when the thread that started it dies, whatever the cause.

mod address;
mod process;
mod program;
mod restarts;
mod starter;
mod supervisor;
#[cfg(test)]
mod test_doubles;

use std::io;
use std::path::PathBuf;

pub use process::{Child, Ends};
pub use program::Program;
pub use starter::Starter;
pub use supervisor::{Seat, Supervisor};

/// Why a backend could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// There is no such program.
    #[error(
        "can't find the backend {program}, neither beside atoll nor on PATH; install it, or serve \
         the device yourself and attach it with --device"
    )]
    NotFound {
        /// The program's name.
        program: &'static str,
    },
    /// No socket pair could be made.
    #[error("can't make a socket pair for {program}")]
    SocketPair {
        /// The program's name.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The program could not be executed.
    #[error("can't start {program}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The device is served at a socket.
    #[error("its backend is somebody else's to start")]
    NotOurs,
    /// The thread that starts backends is not there.
    #[error("can't start backends: the thread that does is not there")]
    NoStarter,
}
