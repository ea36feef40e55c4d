//! A Unix socket. All who connect read; the one who has been there longest types, and it is its window
//! that the guest's terminal is as large as.
//!
//! A client tells its window's size by a byte that comes with its terminal's descriptor (unix(7),
//! `SCM_RIGHTS`): the last byte of what is read with the descriptor is no key.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use atoll_backend::{OwnName, bind};
use atoll_unix_socket::{Access, SocketError};
use libc::iovec;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recvmsg};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::outlet::{OpenError, Outlet, ReaderId};
use crate::window::Size;

/// The most clients at once; the next ones wait in the socket's queue.
const MAX_CLIENTS: usize = 16;

/// The most clients that have left and had typed something before it was their turn.
const MAX_LEFT: usize = 16;

/// How many sizes of its window in a row are taken from a client that has left, before it counts as
/// one that has typed.
const MAX_SIZES: usize = 64;

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
    /// The size of its window, where that was taken before it was its turn.
    window: Option<Size>,
}

impl Client {
    /// Whether it has typed what was not read, or may yet. Takes the sizes of its window that come
    /// before, as these would keep it among those who have, and its terminal open.
    fn has_more(&mut self) -> bool {
        for _ in 0..MAX_SIZES {
            match peek(&self.stream) {
                Ok((1, true)) => {}
                Ok((count, _)) => return count > 0,
                Err(errno) => return matches!(errno, Errno::EAGAIN | Errno::EINTR),
            }
            // It has said all, if that is not understood.
            let Ok((_, terminals)) = receive(&self.stream, &mut [0]) else { return false };
            self.window = terminals.first().and_then(|fd| Size::of(fd.as_fd())).or(self.window);
        }
        true
    }
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
        let first = self.input().map(|(id, _)| id);
        // Some have closed their side for good since they left.
        for client in self.clients.iter_mut().filter(|client| client.sending && !client.reading) {
            client.sending = client.has_more();
            if Some(client.id) == first {
                self.window = client.window.take().unwrap_or(self.window);
            }
        }
        self.clients.retain(|client| client.sending || client.reading);
        let first = self.input().map(|(id, _)| id);
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
        let Some(client) = self.clients.iter_mut().find(|client| client.sending) else {
            return Ok(None);
        };
        self.window = client.window.take().unwrap_or(self.window);
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
            let (id, window) = (self.count, None);
            self.clients.push_back(Client { id, stream, sending: true, reading: true, window });
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
        Some(self.window)
    }
}

/// Looks at what comes next: how many bytes up to two, and whether descriptors come with the last.
fn peek(from: &UnixStream) -> nix::Result<(usize, bool)> {
    let mut bytes = [0; 2];
    let mut bytes = [IoSliceMut::new(&mut bytes)];
    // Descriptors that there is no room for are not made, and the kernel says that there are some.
    let next = recvmsg::<()>(from.as_raw_fd(), &mut bytes, None, MsgFlags::MSG_PEEK)?;
    Ok((next.bytes, next.flags.contains(MsgFlags::MSG_CTRUNC)))
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
