//! Vhost-user messages on a socket: header, body, descriptors, and a deadline for all of it.
//!
//! This is not `vhost::vhost_user::Frontend`, whose message types it uses: that one can't give up
//! waiting (it retries EAGAIN for ever, so socket timeouts don't end it), and waits for a body that
//! a back-end refusing GET_CONFIG never sends. Knows no request.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// vhost-user "Header": request, flags, size of the body.
const HEADER_SIZE: usize = 12;
/// The most a body may have. The largest that is asked for is configuration space.
const MAX_BODY: usize = 0x1000;
/// The most descriptors a message may carry.
const MAX_FDS: usize = 8;
/// The most that can come with one read (SCM_MAX_FD). There is room for all of them, since those
/// that the kernel truncates can't all be found again and closed.
const KERNEL_MAX_FDS: usize = 253;

/// Bits of the header's flags.
const VERSION_MASK: u32 = 0x3;
const VERSION: u32 = 0x1;
pub(super) const FLAG_REPLY: u32 = 0x4;
pub(super) const FLAG_NEED_REPLY: u32 = 0x8;

/// A message as it came.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) request: u32,
    pub(super) flags: u32,
    pub(super) body: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

/// Why there is no message.
#[derive(Debug)]
pub(super) enum WireError {
    /// The other end closed the connection, between messages or in one.
    Closed,
    /// The deadline passed.
    TimedOut,
    /// What came is no message.
    Garbage(String),
    /// The socket failed.
    Io(io::Error),
}

impl From<Errno> for WireError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EPIPE | Errno::ECONNRESET => Self::Closed,
            errno => Self::Io(errno.into()),
        }
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Wire(UnixStream);

impl Wire {
    /// Takes over a connected socket.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(stream))
    }

    /// Sends one message whole.
    pub(super) fn send(
        &self,
        request: u32,
        flags: u32,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<(), WireError> {
        let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER_SIZE.saturating_add(body.len()));
        for word in [request, flags | VERSION, size] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(body);
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let mut rights = Some(&raw).filter(|raw| !raw.is_empty());
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let control: Vec<_> = rights.iter().map(|fds| ControlMessage::ScmRights(fds)).collect();
            let flags = MsgFlags::MSG_NOSIGNAL;
            let iov = [IoSlice::new(rest)];
            match sendmsg::<()>(self.0.as_raw_fd(), &iov, &control, flags, None) {
                Ok(sent) => {
                    // The descriptors went with the first byte.
                    rights = None;
                    rest = rest.get(sent..).unwrap_or_default();
                }
                Err(Errno::EAGAIN) => wait(self.0.as_fd(), PollFlags::POLLOUT, deadline)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Receives one message whole.
    pub(super) fn receive(&self, deadline: Instant) -> Result<Message, WireError> {
        let mut fds = Vec::new();
        let mut header = [0; HEADER_SIZE];
        self.fill(&mut header, &mut fds, deadline)?;
        let [r0, r1, r2, r3, f0, f1, f2, f3, s0, s1, s2, s3] = header;
        let request = u32::from_le_bytes([r0, r1, r2, r3]);
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        let size = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        if flags & VERSION_MASK != VERSION {
            return Err(WireError::Garbage(format!("message header with flags {flags:#x}")));
        }
        if size > MAX_BODY {
            return Err(WireError::Garbage(format!("message of {size} bytes")));
        }
        let mut body = vec![0; size];
        self.fill(&mut body, &mut fds, deadline)?;
        Ok(Message { request, flags, body, fds })
    }

    /// Fills `buffer`, never reading beyond it, so that descriptors stay with their message.
    fn fill(
        &self,
        buffer: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        deadline: Instant,
    ) -> Result<(), WireError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.receive_some(rest, fds) {
                Ok(0) => return Err(WireError::Closed),
                Ok(received) => filled = filled.saturating_add(received),
                Err(Errno::EAGAIN) => wait(self.0.as_fd(), PollFlags::POLLIN, deadline)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if fds.len() > MAX_FDS {
                return Err(WireError::Garbage(format!("message with {} descriptors", fds.len())));
            }
        }
        Ok(())
    }

    fn receive_some(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
        let mut space = cmsg_space!([RawFd; KERNEL_MAX_FDS]);
        let mut iov = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.0.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(received) = control {
                fds.extend(received.into_iter().map(own));
            }
        }
        Ok(message.bytes)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel just made this descriptor for us out of an SCM_RIGHTS message; nobody else
    // knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Time until `deadline`, as poll takes it: rounded up, so that it never spins.
pub(super) fn poll_timeout(deadline: Instant) -> PollTimeout {
    let left = deadline.saturating_duration_since(Instant::now());
    let millis = left.as_micros().div_ceil(1000);
    i32::try_from(millis)
        .ok()
        .and_then(|ms| PollTimeout::try_from(ms).ok())
        .unwrap_or(PollTimeout::MAX)
}

fn wait(fd: BorrowedFd<'_>, flags: PollFlags, deadline: Instant) -> Result<(), WireError> {
    let mut fds = [PollFd::new(fd, flags)];
    match poll(&mut fds, poll_timeout(deadline)) {
        Ok(0) => Err(WireError::TimedOut),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
#[path = "wire_test.rs"]
mod tests;
