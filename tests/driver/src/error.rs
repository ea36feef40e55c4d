//! What can go wrong between the driver and a device process.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A failure, with what was being done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The memory that plays the guest's could not be made.
    #[error("cannot make {len} bytes of guest memory")]
    CreateMemory {
        /// Its length.
        len: u64,
        /// Why.
        source: io::Error,
    },
    /// More guest memory was asked for than there is.
    #[error("the guest memory has no {len} bytes left")]
    NoMemory {
        /// What was asked for.
        len: usize,
    },
    /// An address outside the guest memory.
    #[error("guest address {address:#x} with {len} bytes")]
    Access {
        /// Where.
        address: u64,
        /// How many bytes.
        len: usize,
        /// Why.
        source: vm_memory::GuestMemoryError,
    },
    /// Nobody serves the socket.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An exchange over the socket failed.
    #[error("{doing}")]
    Exchange {
        /// The message by name.
        doing: &'static str,
        /// Why.
        source: vhost::Error,
    },
    /// A system call failed.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A chain was to be added and too few descriptors are free.
    #[error("{needed} descriptors needed, {free} free")]
    Full {
        /// What the chain needs.
        needed: usize,
        /// What is left.
        free: usize,
    },
    /// A chain without buffers cannot be submitted.
    #[error("a chain needs at least one buffer")]
    EmptyChain,
    /// The device did nothing in time.
    #[error("queue {queue}: no used buffer within {timeout:?}")]
    Silent {
        /// The queue's index.
        queue: usize,
        /// How long the driver waited.
        timeout: Duration,
    },
    /// A wait for something else ended.
    #[error("{what} did not happen within {timeout:?}")]
    Late {
        /// What was waited for.
        what: &'static str,
        /// How long.
        timeout: Duration,
    },
    /// The device used a head that the driver had not given it.
    #[error("queue {queue}: the device used head {head}, which is not outstanding")]
    NotOutstanding {
        /// The queue's index.
        queue: usize,
        /// The head.
        head: u32,
    },
}

impl Error {
    /// Wraps the last error of a system call.
    pub(crate) fn system(doing: &'static str, source: impl Into<io::Error>) -> Self {
        Self::System { doing, source: source.into() }
    }
}
