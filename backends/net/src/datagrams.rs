//! Frames over a Unix datagram socket, one each: QEMU's `-netdev dgram`. Neither side connects, so
//! that both may come and go; a frame that nobody is there for is lost, as on a cable.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use atoll_backend::{OwnName, Reader, Received};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use crate::header::{HEADER, MAX_FRAME};

/// The socket's place can't be had.
#[derive(Debug, thiserror::Error)]
pub enum DatagramError {
    /// It can't be made there.
    #[error("cannot make the socket {path}")]
    Bind {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The socket, and where the other one is.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: UnixDatagram,
    local: PathBuf,
    remote: PathBuf,
    /// Removed at the end.
    _file: OwnName,
}

impl Datagrams {
    /// Makes the socket `local`, in the place of one that nobody uses any more.
    pub(crate) fn bind(local: &Path, remote: &Path) -> Result<Self, DatagramError> {
        let failed = |source| DatagramError::Bind { path: local.to_owned(), source };
        let socket = match UnixDatagram::bind(local) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && is_left_behind(local) => {
                std::fs::remove_file(local).map_err(failed)?;
                UnixDatagram::bind(local)
            }
            bound => bound,
        };
        let socket = socket.map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let _file = OwnName::of(local).map_err(failed)?;
        Ok(Self { socket, local: local.to_owned(), remote: remote.to_owned(), _file })
    }

    /// Reads the next frame to `packet`, behind an empty virtio header; `None` when there is none.
    /// Not in line: a TAP's packets would have to go around it.
    #[inline(never)]
    pub(crate) fn read(&self, packet: &mut [u8]) -> io::Result<Option<Received>> {
        let Some((header, room)) = packet.split_at_mut_checked(HEADER) else { return Ok(None) };
        // Its own length, so that one that does not fit is not taken for a frame with its end cut off.
        match recv(self.socket.as_raw_fd(), room, MsgFlags::MSG_TRUNC) {
            Ok(len) => {
                header.fill(0);
                Ok(Some(Received { placed: 0, spilled: HEADER.saturating_add(len) }))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// `WouldBlock` when the other side is slow; else it is not there.
    pub(crate) fn write(&self, frame: &mut Reader<'_>) -> io::Result<()> {
        // Longer ones were refused.
        let mut bytes = vec![0; frame.len().min(MAX_FRAME)];
        frame.copy_to(&mut bytes);
        self.socket.send_to(&bytes, &self.remote).map(drop)
    }
}

/// Whether a socket's file is there and its socket is not.
fn is_left_behind(path: &Path) -> bool {
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    UnixDatagram::unbound().and_then(|probe| probe.connect(path)).is_err_and(refused)
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Display for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "socket {}", self.local.display())
    }
}
