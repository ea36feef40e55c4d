//! The channel on which the device speaks to the front-end unasked: "the configuration changed".
//!
//! `vhost` reads the request that opens the channel, but has no message to announce a change of
//! configuration with and keeps the socket to itself. So this one request is read here.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockType, getsockopt, recvmsg, send, sockopt,
};
use tap::TapFallible;
use vhost::vhost_user::message::{BackendReq, FrontendReq};

/// vhost-user, "Header": request, flags, size of the payload; 32 bits each.
pub(crate) const HEADER: usize = 12;

const VERSION: u32 = 0x1;
const REPLY: u32 = 0x4;
const NEED_REPLY: u32 = 0x8;

/// The header of a message, as far as it has arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    request: u32,
    flags: u32,
    size: u32,
}

impl Header {
    /// The next message's header, left where it is; `None` while less than a header has arrived.
    pub(crate) fn peek(socket: &UnixStream) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEADER];
        let here = loop {
            match nix::sys::socket::recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_PEEK) {
                Err(nix::errno::Errno::EINTR) => {}
                here => break here?,
            }
        };
        let [r0, r1, r2, r3, f0, f1, f2, f3, s0, s1, s2, s3] = bytes;
        Ok((here == HEADER).then_some(Self {
            request: u32::from_ne_bytes([r0, r1, r2, r3]),
            flags: u32::from_ne_bytes([f0, f1, f2, f3]),
            size: u32::from_ne_bytes([s0, s1, s2, s3]),
        }))
    }

    /// What the message asks for, by name or number.
    pub(crate) fn name(&self) -> String {
        FrontendReq::try_from(self.request)
            .map_or_else(|()| format!("request {}", self.request), |request| format!("{request:?}"))
    }

    /// Whether the message opens the back channel.
    pub(crate) fn opens_back_channel(&self) -> bool {
        self.request == u32::from(FrontendReq::SET_BACKEND_REQ_FD)
            && self.flags & REPLY == 0
            && self.size == 0
    }

    /// Whether the message enables or disables a ring.
    pub(crate) fn enables_ring(&self) -> bool {
        self.request == u32::from(FrontendReq::SET_VRING_ENABLE)
            && self.flags & REPLY == 0
            && self.size == 8
    }

    /// The reply to the message, if it asks for one: zero for success.
    pub(crate) fn reply(&self, value: u64) -> Option<Vec<u8>> {
        let reply = || message(self.request, VERSION | REPLY, &value.to_ne_bytes());
        (self.flags & NEED_REPLY != 0).then(reply)
    }
}

/// Tells the front-end, and through it the driver, that the configuration space has changed.
///
/// A handle: clones say it for the same device, from any thread.
#[derive(Clone, Debug, Default)]
pub struct ConfigChange {
    channel: Arc<Mutex<Option<UnixStream>>>,
}

impl ConfigChange {
    /// Says so. Without a front-end that listens nothing needs to be said: it reads the space when
    /// it comes. One that does not read its channel misses it.
    pub fn announce(&self) {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(channel) = channel.as_ref() else {
            return;
        };
        let message = message(BackendReq::CONFIG_CHANGE_MSG.into(), VERSION, &[]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _missed = send(channel.as_raw_fd(), &message, flags).tap_err(|error| {
            tracing::warn!("the front-end does not hear of a change of configuration: {error}");
        });
    }

    /// Reads the request that opens the channel, and replies to it if it asks for that and
    /// `may_reply`.
    pub(crate) fn open(
        &self,
        socket: &UnixStream,
        header: Header,
        may_reply: bool,
    ) -> io::Result<()> {
        let channel = receive_socket(socket)?;
        let refused = u64::from(channel.is_none());
        if let Some(channel) = channel {
            self.set(Some(channel));
        } else {
            tracing::warn!("the front-end's back channel is not a stream socket");
        }
        if may_reply && let Some(reply) = header.reply(refused) {
            let mut socket = socket;
            socket.write_all(&reply)?;
        }
        Ok(())
    }

    /// Forgets the channel, because its front-end left.
    pub(crate) fn close(&self) {
        self.set(None);
    }

    fn set(&self, channel: Option<UnixStream>) {
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = channel;
    }
}

fn message(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    // The payloads here are of at most eight bytes.
    let size = payload.len() as u32;
    let header = [request, flags, size].map(u32::to_ne_bytes);
    [header.as_flattened(), payload].concat()
}

/// Takes a message without payload, of which only the one socket attached to it matters.
fn receive_socket(socket: &UnixStream) -> io::Result<Option<UnixStream>> {
    let mut bytes = [0; HEADER];
    let mut iov = [IoSliceMut::new(&mut bytes)];
    // Room for all that a message can carry (SCM_MAX_FD): what is cut off for lack of it can't be
    // found again, and so not be closed.
    let mut space = nix::cmsg_space!([libc::c_int; 253]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    for attached in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(rights) = attached {
            // SAFETY: the kernel made these descriptors for this process with this message, and
            // nobody else knows of them.
            fds.extend(rights.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let is_stream = |fd: &OwnedFd| getsockopt(fd, sockopt::SockType) == Ok(SockType::Stream);
    let only = fds.pop().filter(|fd| fds.is_empty() && is_stream(fd));
    Ok(only.map(UnixStream::from))
}

#[cfg(test)]
#[path = "back_channel_test.rs"]
mod tests;
