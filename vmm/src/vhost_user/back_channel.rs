//! The channel on which a back-end asks the front-end for something (vhost-user "Back-end
//! communication"). Only one request is served: the configuration has changed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::BackendReq;

use super::wire::{FLAG_NEED_REPLY, FLAG_REPLY, Wire, WireError};

/// How long the rest of a request may take once it has begun, and taking in the answer.
const PATIENCE: Duration = Duration::from_secs(1);

const DONE: u64 = 0;
const NOT_SUPPORTED: u64 = 1;

/// What a back-end wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Configuration space is to be read again.
    ConfigChanged,
    /// Something that is not offered; it was told so.
    Other(u32),
}

/// The front-end's end of the channel.
pub(super) struct BackChannel(Wire);

impl BackChannel {
    /// The channel, and the end that goes to the back-end.
    pub(super) fn new() -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self(Wire::new(ours)?), theirs))
    }

    /// Takes one request that has arrived, and answers it if an answer is wanted.
    pub(super) fn serve(&self) -> Result<Wish, WireError> {
        let deadline = Instant::now() + PATIENCE;
        let message = self.0.receive(deadline)?;
        let (wish, answer) = match BackendReq::try_from(message.request) {
            Ok(BackendReq::CONFIG_CHANGE_MSG) => (Wish::ConfigChanged, DONE),
            _ => (Wish::Other(message.request), NOT_SUPPORTED),
        };
        if message.flags & FLAG_NEED_REPLY != 0 {
            self.0.send(message.request, FLAG_REPLY, &answer.to_le_bytes(), &[], deadline)?;
        }
        Ok(wish)
    }
}

impl AsFd for BackChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
