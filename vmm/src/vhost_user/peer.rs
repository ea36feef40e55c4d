//! Where a back-end is, and getting connected to it again and again.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tracing::warn;

use super::error::VhostUserError;

/// Between two attempts to connect: at least, and at most.
const RETRY: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(2)..=Duration::from_millis(250);
/// Bytes of a Unix socket's address, with the terminating zero (unix(7)).
const PATH_MAX: usize = 108;

/// Where a device's back-ends come from, one after another.
///
/// Dropping it ends a process of its own.
pub trait PeerSource: Send {
    /// How to call the back-end in a sentence: `socket /run/blk.sock`, `its own process`.
    fn name(&self) -> String;

    /// One attempt to be connected with a back-end; takes a moment at most. The connection before,
    /// if there was one, is closed: who served it touches guest memory no more, or is ended now if
    /// it is ours to end.
    ///
    /// # Errors
    /// [`VhostUserError`] when there can be none as long as nothing else changes.
    fn connect(&mut self, id: &str) -> Result<Attempt, VhostUserError>;

    /// The socket that back-ends listen on, if they do.
    fn socket(&self) -> Option<&Path> {
        None
    }

    /// The process behind the last connection, where the socket does not tell.
    fn pid(&self) -> Option<u32> {
        None
    }

    /// Whether it starts back-ends anew when they end, so that the user's policy has to apply only
    /// once it has given up. It begins afresh when it is asked again after that.
    fn restarts(&self) -> bool {
        false
    }

    /// How the process behind the last connection ended, where that is known: `killed by SIGKILL`.
    fn autopsy(&mut self) -> Option<String> {
        None
    }
}

/// What came of an attempt to be connected.
#[derive(Debug)]
pub enum Attempt {
    /// A connection, on which nothing was said yet.
    Connected(UnixStream),
    /// Nobody is there now.
    NotYet {
        /// When to try again.
        retry: Duration,
        /// What the attempt met.
        why: String,
    },
    /// Nobody will be there.
    GivenUp {
        /// Why not.
        why: String,
    },
}

/// Back-ends that are somebody else's, at a socket.
#[derive(Debug)]
pub struct SocketPeer {
    path: PathBuf,
    /// Since when there has been nobody.
    missed_since: Option<Instant>,
}

impl SocketPeer {
    /// Whoever serves the socket at `path`, or will.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, missed_since: None }
    }

    /// The longer nobody was there, the later the next attempt; never an eighth too late.
    fn retry(&mut self) -> Duration {
        let now = Instant::now();
        let missed = now.saturating_duration_since(*self.missed_since.get_or_insert(now));
        (missed / 8).clamp(*RETRY.start(), *RETRY.end())
    }
}

impl PeerSource for SocketPeer {
    fn name(&self) -> String {
        format!("socket {}", self.path.display())
    }

    fn connect(&mut self, _id: &str) -> Result<Attempt, VhostUserError> {
        let error = match try_connect(&self.path) {
            Ok(stream) => {
                self.missed_since = None;
                return Ok(Attempt::Connected(stream));
            }
            Err(error) => error,
        };
        match error.kind() {
            // A file that is not a socket refuses connections as well.
            io::ErrorKind::ConnectionRefused if !is_socket(&self.path) => {
                Err(VhostUserError::NotASocket)
            }
            // It would block: a back-end that listens but takes no connections.
            io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::WouldBlock => {
                Ok(Attempt::NotYet { retry: self.retry(), why: error.to_string() })
            }
            io::ErrorKind::InvalidInput => {
                let len = self.path.as_os_str().len();
                Err(VhostUserError::PathTooLong { len, max: PATH_MAX - 1 })
            }
            _ => Err(VhostUserError::Connect(error)),
        }
    }

    fn socket(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

/// Connects without waiting for a listener whose queue is full.
///
/// # Errors
/// The system's; would block, where a wait might help.
pub fn try_connect(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() >= PATH_MAX {
        return Err(Errno::EINVAL.into());
    }
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

fn is_socket(path: &Path) -> bool {
    // What can't be looked at may still become a socket.
    path.metadata().map_or(true, |metadata| metadata.file_type().is_socket())
}

/// A connection that is there already, and the only one there will be.
#[derive(Debug)]
pub struct StreamPeer(Option<UnixStream>);

impl StreamPeer {
    /// Whoever is at the other end of `stream`.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self(Some(stream))
    }
}

impl PeerSource for StreamPeer {
    fn name(&self) -> String {
        "its own process".to_owned()
    }

    fn connect(&mut self, _id: &str) -> Result<Attempt, VhostUserError> {
        let gone = || Attempt::GivenUp { why: "there is no second connection to it".to_owned() };
        Ok(self.0.take().map_or_else(gone, Attempt::Connected))
    }
}

/// Waits for a connection until `timeout` has passed, or for ever, and says so.
pub(super) fn wait_for(
    id: &str,
    source: &mut dyn PeerSource,
    timeout: Option<Duration>,
) -> Result<UnixStream, VhostUserError> {
    let start = Instant::now();
    let mut told = false;
    loop {
        let (retry, why) = match source.connect(id)? {
            Attempt::Connected(stream) => return Ok(stream),
            Attempt::NotYet { retry, why } => (retry, why),
            Attempt::GivenUp { why } => return Err(VhostUserError::GivenUp(why)),
        };
        if let Some(timeout) = timeout.filter(|timeout| start.elapsed() >= *timeout) {
            return Err(VhostUserError::NobodyThere { timeout, why });
        }
        if !std::mem::replace(&mut told, true) {
            let limit = timeout.map_or_else(String::new, |t| format!(" up to {} s", t.as_secs()));
            warn!("device {id}: waiting{limit} for a back-end at {}: {why}", source.name());
        }
        thread::sleep(retry);
    }
}

#[cfg(test)]
#[path = "peer_test.rs"]
mod tests;
