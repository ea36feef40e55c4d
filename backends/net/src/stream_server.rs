//! A Unix stream socket that somebody else connects to and speaks QEMU's framing over. One at a time:
//! the next waits in the socket's queue until the connection before has ended. What is said over it is
//! the stream's business.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use atoll_backend::{OwnName, bind};
use atoll_unix_socket::{Access, SocketError};

use crate::stream::Connections;

/// The socket, whose file is removed at the end.
#[derive(Debug)]
pub(crate) struct StreamServer {
    listener: UnixListener,
    _file: OwnName,
}

impl StreamServer {
    /// Listens at `path`.
    ///
    /// # Errors
    /// [`SocketError`], naming the path.
    pub(crate) fn bind(path: &Path) -> Result<Self, SocketError> {
        let (listener, file) = bind(path, Access::Umask)?;
        let failed = |source| SocketError::Bind { path: path.into(), source };
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, _file: file })
    }
}

impl Connections for StreamServer {
    fn next(&self) -> io::Result<Option<UnixStream>> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                Ok(Some(stream))
            }
            Err(error) if is_passing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Whether nobody waits, or whoever did has left between its connect and our accept (accept(2)).
fn is_passing(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted)
}
