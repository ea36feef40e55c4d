//! What a device is attached to on the host's side: a TAP, or a user-mode network. It moves
//! packets in; out is the transmit queue's, which knows what an error means for a packet.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use atoll_backend::{Received, Writer, read_packet};

use crate::offload::{self, Features};
use crate::stream::{Connection, UserNet};
use crate::{Tap, TapError};

/// Nothing more will come.
#[derive(Debug, thiserror::Error)]
#[error("cannot read from {from}")]
pub(crate) struct Lost {
    from: String,
    source: io::Error,
}

/// A network of the host's. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) enum Attachment {
    /// Frames with a virtio header.
    Tap(Tap),
    /// Frames without.
    User(UserNet),
}

impl Attachment {
    /// The feature bits of what may be left undone in a packet, either way.
    pub(crate) fn offload_features(&self) -> u64 {
        match self {
            Self::Tap(tap) => offload::offered(tap.knows_uso()),
            Self::User(_) => offload::without_headers(),
        }
    }

    /// Says what the driver takes undone.
    pub(crate) fn set_offload(&self, features: Features) -> Result<(), TapError> {
        match self {
            Self::Tap(tap) => tap.set_offload(features.tap_offload()),
            Self::User(_) => Ok(()),
        }
    }

    /// Reads a packet with its header: into `room` as far as that goes without a copy, the rest
    /// into `spill`. `None` when there is none.
    pub(crate) fn read<'chain>(
        &self,
        used: &mut Option<Arc<Connection>>,
        room: impl Iterator<Item = Writer<'chain>>,
        spill: &mut [u8],
    ) -> Result<Option<Received>, Lost> {
        let lost = |source| Lost { from: self.to_string(), source };
        match self {
            Self::Tap(tap) => match read_packet(tap.as_fd(), room, spill) {
                Ok(packet) => Ok(Some(packet)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(lost(error)),
            },
            Self::User(user) => {
                let Some(connection) = user.connection().map_err(lost)? else {
                    *used = None;
                    return Ok(None);
                };
                match connection.read(spill) {
                    Ok(packet) => {
                        *used = Some(connection);
                        Ok(packet)
                    }
                    Err(error) => {
                        user.lose(&connection, &error);
                        *used = None;
                        Ok(None)
                    }
                }
            }
        }
    }

    /// Readable when there is a packet, or another connection to read.
    pub(crate) fn readable<'a>(&'a self, used: Option<&'a Connection>) -> BorrowedFd<'a> {
        match (self, used) {
            (Self::Tap(tap), _) => tap.as_fd(),
            (Self::User(_), Some(connection)) => connection.as_fd(),
            (Self::User(user), None) => user.as_fd(),
        }
    }

    /// Writable when it takes another packet.
    pub(crate) fn writable<'a>(&'a self, used: Option<&'a Connection>) -> BorrowedFd<'a> {
        self.readable(used)
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tap(tap) => write!(f, "TAP {}", tap.name()),
            Self::User(_) => f.write_str("the user-mode network"),
        }
    }
}
