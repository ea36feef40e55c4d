//! Frames over a stream socket, each behind its length: the framing of QEMU's `-netdev stream`,
//! which passt speaks. It knows no rings. Who makes the socket, and the next one, is another's.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atoll_backend::{Reader, Received};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::header::{HEADER, MAX_FRAME};

/// The length before each frame, big-endian.
const LENGTH: usize = 4;
/// Read at once: at least two of the largest frames.
const INBOX: usize = 256 * 1024;

/// The peer said what no frame can be.
#[derive(Debug, thiserror::Error)]
#[error("a frame of {len} bytes, where at most {MAX_FRAME} are possible")]
struct BadLength {
    len: usize,
}

/// A connection to the peer while it lasts, and what is half read from it or half written to it,
/// which outlives the rings.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    inbox: Mutex<Inbox>,
    outbox: Mutex<Vec<u8>>,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, inbox: Mutex::new(Inbox::new()), outbox: Mutex::default() }
    }

    /// Reads the next frame to `packet`, behind an empty virtio header; `None` when there is none.
    ///
    /// # Errors
    /// After which nothing can be read: the peer left, or does not speak the framing.
    pub(crate) fn read(&self, packet: &mut [u8]) -> io::Result<Option<Received>> {
        let mut inbox = locked(&self.inbox);
        let Some(frame) = inbox.next(&self.stream)? else { return Ok(None) };
        let Some((header, room)) = packet.split_at_mut_checked(HEADER) else { return Ok(None) };
        header.fill(0);
        // A frame longer than the room was refused.
        room.iter_mut().zip(frame).for_each(|(to, from)| *to = *from);
        Ok(Some(Received { placed: 0, spilled: HEADER.saturating_add(frame.len()) }))
    }

    /// Writes a frame, or all that the socket takes of it now, the rest before the next one.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes nothing; else the peer left.
    pub(crate) fn write(&self, frame: &mut Reader<'_>) -> io::Result<()> {
        let mut outbox = locked(&self.outbox);
        flush(&mut outbox, &self.stream)?;
        let whole = frame.clone();
        // A frame is far below 4 GiB.
        let length = (frame.len() as u32).to_be_bytes();
        let written = frame.write_packet(self.stream.as_fd(), &length)?;
        let total = whole.len().saturating_add(LENGTH);
        if written < total {
            outbox.extend_from_slice(&length);
            outbox.resize(total, 0);
            let mut rest = whole;
            rest.copy_to(outbox.get_mut(LENGTH..).unwrap_or_default());
            outbox.drain(..written);
        }
        Ok(())
    }

    /// Writes what is left of a frame that was written in part.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub(crate) fn flush(&self) -> io::Result<()> {
        flush(&mut locked(&self.outbox), &self.stream)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn flush(outbox: &mut Vec<u8>, mut stream: &UnixStream) -> io::Result<()> {
    while !outbox.is_empty() {
        let written = stream.write(outbox)?;
        outbox.drain(..written.min(outbox.len()));
    }
    Ok(())
}

/// Bytes that were read: some frames and the beginning of another.
#[derive(Debug)]
struct Inbox {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Inbox {
    fn new() -> Self {
        // Only what is used of it becomes resident.
        Self { bytes: vec![0; INBOX].into_boxed_slice(), start: 0, end: 0 }
    }

    fn next(&mut self, stream: impl Read) -> io::Result<Option<&[u8]>> {
        let mut found = self.find()?;
        if found.is_none() && self.fill(stream)? {
            found = self.find()?;
        }
        let Some((from, to)) = found else { return Ok(None) };
        self.start = to;
        Ok(self.bytes.get(from..to))
    }

    /// Where the next frame is, if all of it is there.
    fn find(&self) -> io::Result<Option<(usize, usize)>> {
        let read = self.bytes.get(self.start..self.end).unwrap_or_default();
        let Some((length, rest)) = read.split_first_chunk::<LENGTH>() else { return Ok(None) };
        let len = u32::from_be_bytes(*length) as usize;
        if len > MAX_FRAME {
            return Err(io::Error::new(ErrorKind::InvalidData, BadLength { len }));
        }
        let from = self.start.saturating_add(LENGTH);
        Ok((len <= rest.len()).then_some((from, from.saturating_add(len))))
    }

    /// Reads more; `false` when there is no more now.
    fn fill(&mut self, mut stream: impl Read) -> io::Result<bool> {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
        }
        match stream.read(self.bytes.get_mut(self.end..).unwrap_or_default()) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.end = self.end.saturating_add(count);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Where one connection after the other comes from.
pub(crate) trait Connections: fmt::Debug + Send + Sync {
    /// The next one, if it is there now.
    ///
    /// # Errors
    /// When there will be no other.
    fn next(&self) -> io::Result<Option<UnixStream>>;

    /// Readable when there is another one.
    fn readable(&self) -> BorrowedFd<'_>;
}

/// A network over one connection after the other. Clones are the same network.
#[derive(Clone, Debug)]
pub(crate) struct StreamNet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// What it is, for people.
    what: String,
    source: Box<dyn Connections>,
    current: Mutex<Option<Arc<Connection>>>,
    /// Readable after a connection was taken from the source, until the one who reads looks for it.
    taken: EventFd,
    /// One was lost since the driver came.
    lost: AtomicBool,
}

impl StreamNet {
    /// # Errors
    /// When the system has no more descriptors.
    pub(crate) fn new(what: String, source: Box<dyn Connections>) -> io::Result<Self> {
        let taken = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let (current, lost) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self(Arc::new(Shared { what, source, current, taken, lost })))
    }

    /// The connection, if there is one now.
    ///
    /// # Errors
    /// When there will be no other.
    pub(crate) fn connection(&self) -> io::Result<Option<Arc<Connection>>> {
        let mut current = locked(&self.0.current);
        if current.is_none() {
            let next = self.0.source.next()?;
            *current = next.map(|stream| Arc::new(Connection::new(stream)));
            if current.is_some() {
                // It can only fail when its counter is full, and then it is readable.
                let _full = self.0.taken.write(1);
            }
        }
        Ok(current.clone())
    }

    /// Readable when whoever writes may have taken the connection that a reader waits for.
    pub(crate) fn taken(&self) -> BorrowedFd<'_> {
        self.0.taken.as_fd()
    }

    /// The reader is about to look for a connection. What was taken until now does not wake it again:
    /// it may be lost already, and then nobody reads from it. What is taken from now on does.
    pub(crate) fn forget_taken(&self) {
        let _nothing_new = self.0.taken.read();
    }

    /// Whether the connection that is read from now is in place of one that was lost. Asked once.
    pub(crate) fn is_another(&self) -> bool {
        self.0.lost.swap(false, Ordering::AcqRel)
    }

    /// `connection` is of no more use: the next one takes its place when it comes.
    pub(crate) fn lose(&self, connection: &Arc<Connection>, error: &io::Error) {
        let mut current = locked(&self.0.current);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            *current = None;
            self.0.lost.store(true, Ordering::Release);
            // A keeper has a copy, and looks for the end.
            let _closed = connection.stream.shutdown(Shutdown::Both);
            tracing::warn!("lost {} until it is there again: {error}", self.0.what);
        }
    }
}

impl fmt::Display for StreamNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl AsFd for StreamNet {
    /// Readable when there is another connection.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.source.readable()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "stream_test.rs"]
mod tests;
