//! The control socket itself: bound where nobody else listens, or inherited from a service manager;
//! its file removed at the end. Who connects, and why, is not known here.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use atoll_unix_socket::{self as unix_socket, Access, SocketFile};
use nix::sys::socket::{UnixAddr, getsockname, getsockopt, sockopt};

/// What a socket unit calls its descriptor with `FileDescriptorName=`.
const ACTIVATION_NAME: &str = "control";

/// There is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It can't be where it should be.
    #[error("can't serve the control socket (--control)")]
    Path(#[source] unix_socket::SocketError),
    /// What was inherited is something else.
    #[error("the inherited descriptor {fd} (`{ACTIVATION_NAME}`) is not a listening Unix socket")]
    NotListening {
        /// Its number.
        fd: RawFd,
    },
    /// The variables of socket activation contradict themselves.
    #[error("can't take the sockets that the service manager passed (LISTEN_FDS)")]
    Activation(#[source] io::Error),
    /// The system refuses.
    #[error("can't let the control socket not block")]
    Mode(#[source] io::Error),
}

/// A socket on which clients connect.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    /// Where we made it ourselves.
    _file: Option<SocketFile>,
}

impl Socket {
    /// Listens at `path`, in place of a socket that nobody serves any more; else on the socket that
    /// the service manager passed. `None` when there is neither.
    ///
    /// # Errors
    /// [`SocketError`], naming the path.
    pub fn open(path: Option<&Path>) -> Result<Option<Self>, SocketError> {
        match path {
            Some(path) => Self::bind(path).map(Some),
            None => Self::inherit(),
        }
    }

    fn bind(path: &Path) -> Result<Self, SocketError> {
        let (listener, file) = unix_socket::bind(path, Access::Owner).map_err(SocketError::Path)?;
        Self::of(listener, Some(file))
    }

    fn inherit() -> Result<Option<Self>, SocketError> {
        let passed = sd_notify::listen_fds_with_names().map_err(SocketError::Activation)?;
        let mut passed = passed.filter(|(_, name)| name == ACTIVATION_NAME);
        let Some((fd, _)) = passed.next() else { return Ok(None) };
        // SAFETY: the service manager handed it over by its number, to this process (LISTEN_PID),
        // and nobody else here takes descriptors by that name. This is called once.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        let unix = getsockname::<UnixAddr>(owned.as_raw_fd()).is_ok();
        if !unix || getsockopt(&owned, sockopt::AcceptConn) != Ok(true) {
            return Err(SocketError::NotListening { fd });
        }
        Self::of(UnixListener::from(owned), None).map(Some)
    }

    fn of(listener: UnixListener, file: Option<SocketFile>) -> Result<Self, SocketError> {
        listener.set_nonblocking(true).map_err(SocketError::Mode)?;
        Ok(Self { listener, _file: file })
    }

    /// The next client; `None` when nobody waits.
    pub(super) fn accept(&self) -> io::Result<Option<UnixStream>> {
        use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
        match self.listener.accept() {
            Ok((stream, _unnamed)) => Ok(Some(stream)),
            Err(error) if matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

#[cfg(test)]
#[path = "socket_test.rs"]
mod tests;
