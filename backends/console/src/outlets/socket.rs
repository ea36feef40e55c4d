//! A Unix socket, for one client at a time; the next waits until that one leaves.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use atoll_unix_socket::{self as unix_socket, Access, SocketError, SocketFile};

use crate::outlet::{OpenError, Outlet};
use crate::window::Size;

/// A socket that clients attach to.
pub(super) struct Socket {
    listener: UnixListener,
    client: Option<UnixStream>,
    /// Whether the client may still send; one that shut down its side goes on reading.
    sending: bool,
    /// Whether it still reads. What one that has left had typed is the guest's all the same,
    /// until the next client comes.
    reading: bool,
    _file: SocketFile,
}

impl Socket {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let (listener, file) = unix_socket::bind(path, Access::Umask)?;
        let failed = |source| SocketError::Bind { path: path.into(), source };
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, client: None, sending: false, reading: false, _file: file })
    }
}

impl Socket {
    /// Closes the connection of a client that is done with it.
    fn forget(&mut self) {
        if !self.sending && !self.reading {
            self.client = None;
        }
    }
}

impl Outlet for Socket {
    fn output(&self) -> Option<BorrowedFd<'_>> {
        self.client.as_ref().filter(|_| self.reading).map(AsFd::as_fd)
    }

    fn input(&self) -> Option<BorrowedFd<'_>> {
        self.client.as_ref().filter(|_| self.sending).map(AsFd::as_fd)
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        (!self.reading).then(|| self.listener.as_fd())
    }

    fn check(&mut self) {
        if self.reading {
            return;
        }
        // A client may leave between its connect and our accept.
        let accepted = self.listener.accept().and_then(|(client, _unnamed)| {
            client.set_nonblocking(true)?;
            Ok(client)
        });
        if let Ok(client) = accepted {
            tracing::info!("a client is attached");
            (self.client, self.sending, self.reading) = (Some(client), true, true);
        }
    }

    fn input_ended(&mut self) {
        self.sending = false;
        self.forget();
    }

    fn output_failed(&mut self, reason: &str) {
        tracing::info!("the client has left: {reason}");
        self.reading = false;
        self.forget();
    }

    fn window(&self) -> Option<Size> {
        None
    }
}
