//! A Unix socket. All who connect read; the one who has been there longest types, and it is its window
//! that the guest's terminal is as large as.
//!
//! A client tells its window's size by a byte that comes with its terminal's descriptor (unix(7),
//! `SCM_RIGHTS`): the last byte of what is read with the descriptor is no key.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use atoll_backend::{OwnName, bind};
use atoll_unix_socket::{Access, SocketError};
use libc::iovec;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::outlet::{OpenError, Outlet, ReaderId};
use crate::window::Size;

/// The most clients at once; the next ones wait in the socket's queue.
const MAX_CLIENTS: usize = 16;

/// The most clients that have left and had typed something before it was their turn.
const MAX_LEFT: usize = 16;

/// A socket that clients attach to.
pub(super) struct Socket {
    listener: UnixListener,
    /// In the order in which they came. What those behind the first type waits until it is their
    /// turn, so that a client who comes again before we know that it has left loses nothing.
    clients: VecDeque<Client>,
    /// How many have come.
    count: ReaderId,
    /// Unknown, which is zero, until somebody says it.
    window: Size,
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
        Ok(Self {
            listener,
            clients: VecDeque::new(),
            count: 0,
            window: Size::default(),
            _file: file,
        })
    }

    /// Closes the connections of clients that are done with them.
    fn forget(&mut self) {
        self.clients.retain(|client| client.sending || client.reading);
        let first = self.clients.iter().find(|client| client.sending).map(|client| client.id);
        let left = self.clients.iter().filter(|client| !client.reading && Some(client.id) != first);
        let left = Vec::from_iter(left.map(|client| client.id));
        for oldest in left.iter().take(left.len().saturating_sub(MAX_LEFT)) {
            tracing::warn!("what a client had typed is lost: {MAX_LEFT} others have left since");
            self.clients.retain(|client| client.id != *oldest);
        }
    }
}

impl Outlet for Socket {
    fn readers(&self) -> Vec<(ReaderId, BorrowedFd<'_>)> {
        let reading = self.clients.iter().filter(|client| client.reading);
        reading.map(|client| (client.id, client.stream.as_fd())).collect()
    }

    fn input(&self) -> Option<(ReaderId, BorrowedFd<'_>)> {
        let sending = self.clients.iter().find(|client| client.sending);
        sending.map(|client| (client.id, client.stream.as_fd()))
    }

    fn read(&mut self, keys: &mut [u8]) -> nix::Result<Option<usize>> {
        let Some(client) = self.clients.iter().find(|client| client.sending) else {
            return Ok(None);
        };
        // Who sends many descriptors at once is not understood, and has said all.
        let (count, terminals) = receive(&client.stream, keys)?;
        let Some(terminal) = terminals.first() else {
            return Ok(Some(count).filter(|&count| count > 0));
        };
        if let Some(size) = Size::of(terminal.as_fd()) {
            self.window = size;
        }
        // The kernel lets no byte follow the one that came with it.
        Ok(Some(count.saturating_sub(1)))
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        // One that has left takes nobody's place, though what it had typed waits for its turn.
        (self.readers().len() < MAX_CLIENTS).then(|| self.listener.as_fd())
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
            client.sending &= has_more(&client.stream);
        }
        self.forget();
    }

    fn window(&self) -> Option<Size> {
        Some(self.window)
    }
}

/// Whether there is something to read, or may be later.
fn has_more(from: &UnixStream) -> bool {
    let more = recv(from.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK);
    matches!(more, Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR))
}

/// Reads bytes, and the descriptors with the last of them.
fn receive(from: &UnixStream, bytes: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut bytes = [iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }];
    // Room for one has room for two by its alignment, of which vmm-sys-util would not know when the
    // kernel has three for us: then it closes as many as there is room for.
    let mut descriptors: [RawFd; 2] = [-1; 2];
    // SAFETY: the only vector is the whole of `bytes`, borrowed mutably for as long.
    let received = unsafe { from.recv_with_fds(&mut bytes, &mut descriptors) };
    let (count, received) = received.map_err(|error| Errno::from_raw(error.errno()))?;
    let received = descriptors.into_iter().take(received);
    // SAFETY: the kernel has just made each of them for us, and nobody else knows of it.
    Ok((count, received.map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }).collect()))
}
