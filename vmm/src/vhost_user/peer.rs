//! Where a back-end is, and getting connected to it.

use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use super::error::VhostUserError;

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);
/// Bytes of a Unix socket's address, with the terminating zero (unix(7)).
const PATH_MAX: usize = 108;

/// Where a back-end is.
#[derive(Debug)]
pub enum Peer {
    /// Somebody serves this socket, or will.
    Path(PathBuf),
    /// A process of ours is at the other end. There is no second connection to it.
    Stream(UnixStream),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "socket {}", path.display()),
            Self::Stream(_) => f.write_str("its own process"),
        }
    }
}

/// Connects to `path`, waiting for somebody to serve it until `timeout` has passed, or for ever, and
/// saying so.
pub(super) fn wait_for(
    id: &str,
    path: &Path,
    timeout: Option<Duration>,
) -> Result<UnixStream, VhostUserError> {
    let start = Instant::now();
    let mut told = false;
    loop {
        let error = match try_connect(path) {
            Ok(stream) => return Ok(stream),
            Err(Attempt::NotYet(error)) => error,
            Err(Attempt::Never(error)) => return Err(error),
        };
        if let Some(timeout) = timeout.filter(|timeout| start.elapsed() >= *timeout) {
            return Err(VhostUserError::NobodyThere { timeout, source: error });
        }
        if !std::mem::replace(&mut told, true) {
            let limit = timeout.map_or_else(String::new, |t| format!(" up to {} s", t.as_secs()));
            warn!("device {id}: waiting{limit} for a back-end at {}: {error}", path.display());
        }
        thread::sleep(RETRY);
    }
}

/// Why one attempt to connect failed.
pub(super) enum Attempt {
    /// The back-end may yet come.
    NotYet(io::Error),
    /// It won't, whatever comes.
    Never(VhostUserError),
}

/// One attempt to connect to `path`.
pub(super) fn try_connect(path: &Path) -> Result<UnixStream, Attempt> {
    if path.as_os_str().len() >= PATH_MAX {
        let len = path.as_os_str().len();
        return Err(Attempt::Never(VhostUserError::PathTooLong { len, max: PATH_MAX - 1 }));
    }
    UnixStream::connect(path).map_err(|error| match error.kind() {
        // A file that is not a socket refuses connections as well.
        io::ErrorKind::ConnectionRefused if !is_socket(path) => {
            Attempt::Never(VhostUserError::NotASocket)
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock => {
            Attempt::NotYet(error)
        }
        _ => Attempt::Never(VhostUserError::Connect(error)),
    })
}

fn is_socket(path: &Path) -> bool {
    // What can't be looked at may still become a socket.
    path.metadata().map_or(true, |metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
#[path = "peer_test.rs"]
mod tests;
