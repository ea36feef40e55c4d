//! One connection to a back-end: the requests of a front-end, each checked and with a deadline
//! (vhost-user "Front-end message types").
//!
//! Knows the protocol but not when to speak; what to offer and when to start is decided elsewhere.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{debug, warn};
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures};

use super::REPLY_DEADLINE;
use super::back_channel::{BackChannel, Wish};
use super::error::VhostUserError;
use super::offer::Found;
use super::wire::{FLAG_NEED_REPLY, FLAG_REPLY, Message, Wire, WireError, poll_timeout};
use crate::virtio::DeviceType;

/// VHOST_USER_F_PROTOCOL_FEATURES, a bit among the virtio features that is not the driver's.
pub(super) const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// What is used of the protocol if the back-end offers it.
const WANTED: Protocol = Protocol::MQ
    .union(Protocol::REPLY_ACK)
    .union(Protocol::BACKEND_REQ)
    .union(Protocol::CONFIG)
    .union(Protocol::INFLIGHT_SHMFD)
    .union(Protocol::GET_VRING_BASE_INFLIGHT);

/// GET_CONFIG and SET_CONFIG: the driver's own access, and the header before the bytes.
const CONFIG_FLAGS: u32 = 0;
const CONFIG_HEADER: usize = 12;

/// A connection on which the handshake is done.
pub(super) struct Session {
    id: String,
    wire: Wire,
    back: Option<BackChannel>,
    pub(super) protocol: Protocol,
    /// Whether the back-end knows PROTOCOL_FEATURES; if not, its rings are always enabled.
    pub(super) extended: bool,
    config_changed: bool,
    deadline: Instant,
}

impl Session {
    /// Greets the back-end on a fresh connection and finds out what it has.
    ///
    /// # Errors
    /// [`VhostUserError`] when it does not answer, not in time, or not as a back-end does.
    pub(super) fn open(
        id: &str,
        stream: UnixStream,
        device_type: DeviceType,
    ) -> Result<(Self, Found), VhostUserError> {
        let request = FrontendReq::SET_OWNER;
        let wire = Wire::new(stream).map_err(|source| VhostUserError::Io { request, source })?;
        let mut session = Self {
            id: id.to_owned(),
            wire,
            back: None,
            protocol: Protocol::empty(),
            extended: false,
            config_changed: false,
            deadline: Instant::now(),
        };
        session.begin(REPLY_DEADLINE);
        session.tell(FrontendReq::SET_OWNER, &[], &[])?;
        let features = session.get_u64(FrontendReq::GET_FEATURES)?;
        session.extended = features & PROTOCOL_FEATURES != 0;
        if session.extended {
            session.agree_on_protocol()?;
        }
        let queues = match session.protocol.contains(Protocol::MQ) {
            true => Some(session.get_u64(FrontendReq::GET_QUEUE_NUM)?),
            false => None,
        };
        let config = match session.protocol.contains(Protocol::CONFIG) {
            true => session.first_config(device_type, features)?,
            false => None,
        };
        let features = features & !PROTOCOL_FEATURES;
        Ok((session, Found { features, queues, config }))
    }

    /// Reads all of configuration space, `len` bytes.
    ///
    /// # Errors
    /// [`VhostUserError`].
    pub(super) fn read_config(&mut self, len: usize) -> Result<Vec<u8>, VhostUserError> {
        self.begin(REPLY_DEADLINE);
        self.config_changed = false;
        if !self.protocol.contains(Protocol::CONFIG) || len == 0 {
            return Ok(vec![0; len]);
        }
        let request = FrontendReq::GET_CONFIG;
        let config = self.get_config(len)?;
        config.ok_or_else(|| {
            let reason = format!("it has no {len} bytes of configuration space any more");
            VhostUserError::Garbage { request, reason }
        })
    }

    /// Writes bytes of configuration space, as the driver did.
    ///
    /// # Errors
    /// [`VhostUserError`]; [`VhostUserError::Refused`] leaves the connection intact.
    pub(super) fn write_config(
        &mut self,
        offset: usize,
        data: &[u8],
    ) -> Result<(), VhostUserError> {
        self.begin(REPLY_DEADLINE);
        if !self.protocol.contains(Protocol::CONFIG) {
            return Ok(());
        }
        let mut body = config_header(offset, data.len());
        body.extend_from_slice(data);
        self.tell(FrontendReq::SET_CONFIG, &body, &[])
    }

    /// Whether the back-end said that its configuration changed, since this was last asked.
    pub(super) fn take_config_changed(&mut self) -> bool {
        std::mem::take(&mut self.config_changed)
    }

    /// The channel on which the back-end speaks first, if it has one.
    pub(super) fn back(&self) -> Option<BorrowedFd<'_>> {
        self.back.as_ref().map(AsFd::as_fd)
    }

    /// Whether there is something to hear: on the connection, and on the back channel.
    pub(super) fn speaks(&self) -> (bool, bool) {
        let mut fds = vec![PollFd::new(self.wire.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.back().map(|back| PollFd::new(back, PollFlags::POLLIN)));
        if !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..)) {
            return (false, false);
        }
        let mut speaks = fds.iter().map(|fd| fd.any() == Some(true));
        (speaks.next() == Some(true), speaks.next() == Some(true))
    }

    /// Takes one message from the back channel.
    pub(super) fn serve_back(&mut self) {
        let Some(back) = &self.back else { return };
        match back.serve() {
            Ok(Wish::ConfigChanged) => self.config_changed = true,
            Ok(Wish::Other(code)) => {
                debug!("device {}: back-end's request {code} refused", self.id);
            }
            Err(error) => {
                // A back-end may close it; whatever else happened, it is of no use any more.
                if !matches!(error, WireError::Closed) {
                    warn!("device {}: closing the back-end's own channel: {error:?}", self.id);
                }
                self.back = None;
            }
        }
    }

    /// Takes what the back-end says unasked, which can only be the end.
    pub(super) fn unasked(&mut self) -> VhostUserError {
        self.begin(REPLY_DEADLINE);
        match self.wire.receive(self.deadline) {
            Err(WireError::Closed) => VhostUserError::Gone,
            Err(error) => VhostUserError::Unasked(format!("{error:?}")),
            Ok(message) => VhostUserError::Unasked(format!("message {}", message.request)),
        }
    }

    fn agree_on_protocol(&mut self) -> Result<(), VhostUserError> {
        let offered = self.get_u64(FrontendReq::GET_PROTOCOL_FEATURES)?;
        let mut protocol = Protocol::from_bits_truncate(offered) & WANTED;
        if !protocol.contains(Protocol::INFLIGHT_SHMFD) {
            // A ring may only be stopped with requests in flight where they are recorded.
            protocol.remove(Protocol::GET_VRING_BASE_INFLIGHT);
        }
        self.tell_u64(FrontendReq::SET_PROTOCOL_FEATURES, protocol.bits())?;
        self.protocol = protocol;
        if protocol.contains(Protocol::BACKEND_REQ) {
            let (back, theirs) = BackChannel::new()
                .map_err(|source| VhostUserError::Descriptor { what: "a socket pair", source })?;
            self.tell(FrontendReq::SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()])?;
            self.back = Some(back);
        }
        Ok(())
    }

    /// Configuration space as a device of this type must have it.
    fn first_config(
        &mut self,
        device_type: DeviceType,
        features: u64,
    ) -> Result<Option<Vec<u8>>, VhostUserError> {
        let len = device_type.config_len(features);
        if len == 0 {
            return Ok(Some(Vec::new()));
        }
        let config = self.get_config(len)?.ok_or_else(|| VhostUserError::OtherType {
            device_type: device_type.name(),
            reason: format!("it has no {len} bytes of configuration space"),
        })?;
        Ok(Some(config))
    }

    /// GET_CONFIG from the start; nothing if the back-end says that it has not so much.
    fn get_config(&mut self, len: usize) -> Result<Option<Vec<u8>>, VhostUserError> {
        let request = FrontendReq::GET_CONFIG;
        let mut body = config_header(0, len);
        body.resize(CONFIG_HEADER.saturating_add(len), 0);
        let mut reply = self.ask(request, &body, &[])?;
        // vhost-user "VHOST_USER_GET_CONFIG": a body without configuration is a refusal. Back-ends
        // also leave out the body, or say size 0 in it.
        if reply.len() <= CONFIG_HEADER {
            return Ok(None);
        }
        if reply.len() != body.len() || reply.get(..8) != body.get(..8) {
            let got = reply.len().saturating_sub(CONFIG_HEADER);
            let reason = format!("asked for {len} bytes of configuration, it sent {got}");
            return Err(VhostUserError::Garbage { request, reason });
        }
        Ok(Some(reply.split_off(CONFIG_HEADER)))
    }

    /// All that follows has to be answered before `patience` ends.
    pub(super) fn begin(&mut self, patience: Duration) {
        let now = Instant::now();
        self.deadline = now.checked_add(patience).unwrap_or(now);
    }

    /// Without REPLY_ACK nothing has said yet whether the back-end took all that it was told; a
    /// request that is always answered makes sure that it has at least been read.
    pub(super) fn settle(&mut self) -> Result<(), VhostUserError> {
        if !self.protocol.contains(Protocol::REPLY_ACK) {
            self.get_u64(FrontendReq::GET_FEATURES)?;
        }
        Ok(())
    }

    fn get_u64(&mut self, request: FrontendReq) -> Result<u64, VhostUserError> {
        let body = self.ask(request, &[], &[])?;
        fixed(request, &body).map(u64::from_le_bytes)
    }

    pub(super) fn tell_u64(
        &mut self,
        request: FrontendReq,
        value: u64,
    ) -> Result<(), VhostUserError> {
        self.tell(request, &value.to_le_bytes(), &[])
    }

    pub(super) fn tell_state(
        &mut self,
        request: FrontendReq,
        index: u16,
        num: u32,
    ) -> Result<(), VhostUserError> {
        self.tell(request, &state(index, num), &[])
    }

    /// Sends a request that has no reply of its own; with REPLY_ACK waits for its success.
    pub(super) fn tell(
        &mut self,
        request: FrontendReq,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), VhostUserError> {
        if !self.protocol.contains(Protocol::REPLY_ACK) {
            return self.send(request, 0, body, fds);
        }
        self.send(request, FLAG_NEED_REPLY, body, fds)?;
        let reply = self.reply(request, 0)?.body;
        match u64::from_le_bytes(fixed(request, &reply)?) {
            0 => Ok(()),
            code => Err(VhostUserError::Refused { request, code }),
        }
    }

    /// Sends a request and waits for its reply.
    pub(super) fn ask(
        &mut self,
        request: FrontendReq,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Vec<u8>, VhostUserError> {
        self.send(request, 0, body, fds)?;
        self.reply(request, 0).map(|message| message.body)
    }

    /// Sends a request and waits for its reply, which may carry so many descriptors.
    pub(super) fn ask_for(
        &mut self,
        request: FrontendReq,
        body: &[u8],
        descriptors: usize,
    ) -> Result<Message, VhostUserError> {
        self.send(request, 0, body, &[])?;
        self.reply(request, descriptors)
    }

    fn send(
        &self,
        request: FrontendReq,
        flags: u32,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), VhostUserError> {
        self.wire
            .send(request.into(), flags, body, fds, self.deadline)
            .map_err(|error| failure(request, error))
    }

    /// Waits for the reply to `request`. Meanwhile serves the back channel, since a back-end may
    /// have asked something there that it wants answered first.
    fn reply(
        &mut self,
        request: FrontendReq,
        descriptors: usize,
    ) -> Result<Message, VhostUserError> {
        while !self.wait(request)? {
            self.serve_back();
        }
        let message = self.wire.receive(self.deadline).map_err(|error| failure(request, error))?;
        check(request, &message, descriptors)
            .map_err(|reason| VhostUserError::Garbage { request, reason })?;
        Ok(message)
    }

    /// Waits until there is something to read: true if a reply, false if on the back channel.
    fn wait(&self, request: FrontendReq) -> Result<bool, VhostUserError> {
        let mut fds = vec![PollFd::new(self.wire.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.back().map(|back| PollFd::new(back, PollFlags::POLLIN)));
        loop {
            // A flood on the back channel must not put off the end.
            let late = Instant::now() >= self.deadline;
            match poll(&mut fds, poll_timeout(self.deadline)) {
                Ok(0) => return Err(failure(request, WireError::TimedOut)),
                Ok(_) if late => return Err(failure(request, WireError::TimedOut)),
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(failure(request, errno.into())),
            }
        }
        Ok(fds.first().is_some_and(|fd| fd.any() == Some(true)))
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}

/// "A vring state description".
pub(super) fn state(index: u16, num: u32) -> Vec<u8> {
    [u32::from(index), num].iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// "Virtio device config space": offset, size and flags, before the bytes.
fn config_header(offset: usize, len: usize) -> Vec<u8> {
    let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let words = [word(offset), word(len), CONFIG_FLAGS];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Whether `message` is a reply to `request` at all.
fn check(request: FrontendReq, message: &Message, descriptors: usize) -> Result<(), String> {
    if message.flags & FLAG_REPLY == 0 {
        return Err(format!("it sent message {} instead of a reply", message.request));
    }
    if message.request != u32::from(request) {
        return Err(format!("it replied to request {} instead", message.request));
    }
    if message.fds.len() > descriptors {
        return Err(format!("its reply carries {} descriptors", message.fds.len()));
    }
    Ok(())
}

/// A body that must have `N` bytes.
pub(super) fn fixed<const N: usize>(
    request: FrontendReq,
    body: &[u8],
) -> Result<[u8; N], VhostUserError> {
    <[u8; N]>::try_from(body).map_err(|_wrong_size| {
        let reason = format!("its reply has {} bytes instead of {N}", body.len());
        VhostUserError::Garbage { request, reason }
    })
}

fn failure(request: FrontendReq, error: WireError) -> VhostUserError {
    match error {
        WireError::Closed => VhostUserError::Closed { request },
        WireError::TimedOut => VhostUserError::NoAnswer { request },
        WireError::Garbage(reason) => VhostUserError::Garbage { request, reason },
        WireError::Io(source) => VhostUserError::Io { request, source },
    }
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
