//! A Unix socket. All who connect read; the one who has been there longest types.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use atoll_backend::{OwnName, bind};
use atoll_unix_socket::{Access, SocketError};

use crate::outlet::{OpenError, Outlet, ReaderId};
use crate::window::Size;

/// The most clients at once; the next ones wait in the socket's queue.
const MAX_CLIENTS: usize = 16;

/// A socket that clients attach to.
pub(super) struct Socket {
    listener: UnixListener,
    /// In the order in which they came. What those behind the first type waits until it is their
    /// turn, so that a client who comes again before we know that it has left loses nothing.
    clients: VecDeque<Client>,
    /// How many have come.
    count: ReaderId,
    _file: OwnName,
}

struct Client {
    id: ReaderId,
    stream: UnixStream,
    /// Whether it may still send; one that shut down its side goes on reading.
    sending: bool,
    /// Whether it still reads. What one that has left had typed is the guest's all the same.
    reading: bool,
}

impl Socket {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let (listener, file) = bind(path, Access::Umask)?;
        let failed = |source| SocketError::Bind { path: path.into(), source };
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, clients: VecDeque::new(), count: 0, _file: file })
    }

    /// Closes the connections of clients that are done with them.
    fn forget(&mut self) {
        self.clients.retain(|client| client.sending || client.reading);
    }
}

impl Outlet for Socket {
    fn readers(&self) -> Vec<(ReaderId, BorrowedFd<'_>)> {
        let reading = self.clients.iter().filter(|client| client.reading);
        reading.map(|client| (client.id, client.stream.as_fd())).collect()
    }

    fn input(&self) -> Option<BorrowedFd<'_>> {
        self.clients.iter().find(|client| client.sending).map(|client| client.stream.as_fd())
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        (self.clients.len() < MAX_CLIENTS).then(|| self.listener.as_fd())
    }

    fn check(&mut self) {
        if self.events().is_none() {
            return;
        }
        // A client may leave between its connect and our accept.
        let accepted = self.listener.accept().and_then(|(stream, _unnamed)| {
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        if let Ok(stream) = accepted {
            tracing::info!("a client is attached");
            self.count = self.count.saturating_add(1);
            let client = Client { id: self.count, stream, sending: true, reading: true };
            self.clients.push_back(client);
        }
    }

    fn input_ended(&mut self) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.sending) {
            client.sending = false;
        }
        self.forget();
    }

    fn reader_left(&mut self, reader: ReaderId, reason: &str) {
        tracing::info!("a client has left: {reason}");
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == reader) {
            client.reading = false;
        }
        self.forget();
    }

    fn window(&self) -> Option<Size> {
        None
    }
}
