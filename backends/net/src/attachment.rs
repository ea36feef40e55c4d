//! What a device is attached to on the host's side: a TAP, or a socket. It moves
//! packets in; out is the transmit queue's, which knows what an error means for a packet.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use atoll_backend::{Received, Wait, Writer, read_packet};
use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::TapError;
use crate::datagrams::Datagrams;
use crate::offload;
use crate::pair::{Pair, Served};
use crate::stream::{Connection, StreamNet};

/// About how many bytes one direction moves before it is the other's turn: with the largest packets some
/// 50 us, in which small ones would have been many.
pub(crate) const TURN: usize = 256 * 1024;

/// Nothing more will come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// Somebody has deleted the interface.
    #[error(
        "TAP {name} is gone; make it again, and end this process so that another attaches to it"
    )]
    Gone { name: String },
    #[error("cannot read from {from}")]
    Read { from: String, source: io::Error },
}

/// A network of the host's. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) enum Attachment {
    /// Frames with a virtio header.
    Tap(Arc<Pair>),
    /// Frames without.
    Stream(StreamNet),
    /// Frames without, too.
    Datagrams(Arc<Datagrams>),
}

impl Attachment {
    /// The feature bits of what may be left undone in a packet, either way.
    pub(crate) fn offload_features(&self) -> u64 {
        match self {
            Self::Tap(pair) => offload::offered(pair.tap().knows_uso()),
            Self::Stream(_) | Self::Datagrams(_) => offload::without_headers(),
        }
    }

    /// Says what the driver takes undone: TUNSETOFFLOAD's flags.
    pub(crate) fn set_offload(&self, flags: u32) -> Result<(), TapError> {
        match self {
            Self::Tap(pair) => pair.tap().set_offload(flags),
            Self::Stream(_) | Self::Datagrams(_) => Ok(()),
        }
    }

    /// Gets packets for as long as what is returned lives.
    pub(crate) fn serve(&self) -> Result<Option<Served>, TapError> {
        match self {
            Self::Tap(pair) => pair.serve().map(Some),
            Self::Stream(_) | Self::Datagrams(_) => Ok(None),
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
        let lost = |source| Lost::Read { from: self.to_string(), source };
        match self {
            Self::Tap(pair) => {
                pair.take_change();
                if !pair.is_attached() {
                    return Ok(None);
                }
                match read_packet(pair.tap().as_fd(), room, spill) {
                    Ok(packet) => Ok(Some(packet)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                    // It may have gone out of use this moment.
                    Err(error) if not_attached(&error) => match pair.is_gone() {
                        true => Err(Lost::Gone { name: pair.tap().name().to_owned() }),
                        false => Ok(None),
                    },
                    Err(error) => Err(lost(error)),
                }
            }
            Self::Datagrams(socket) => socket.read(spill).map_err(lost),
            Self::Stream(stream) => read_stream(stream, used, spill).map_err(lost),
        }
    }

    /// Whether the network that is read from now took the place of one that was lost. Asked once.
    pub(crate) fn is_another(&self) -> bool {
        match self {
            Self::Tap(_) | Self::Datagrams(_) => false,
            Self::Stream(stream) => stream.is_another(),
        }
    }

    /// Whether packets that were not read yet wake who waits. Of a stream some may have been taken out
    /// of the socket already.
    pub(crate) fn wakes_again(&self) -> bool {
        !matches!(self, Self::Stream(_))
    }

    /// Waits until there is a packet, or another place to read one from.
    pub(crate) fn until_readable<'a>(&'a self, used: Option<&'a Connection>) -> Wait<'a> {
        let wait = Wait::no_kick();
        match (self, used) {
            (Self::Tap(pair), _) => {
                if pair.is_attached() {
                    return wait.on_lasting(pair.tap().file());
                }
                pair.change()
                    .into_iter()
                    .fold(wait, |wait, change| wait.on(change, PollFlags::POLLIN))
            }
            (Self::Datagrams(socket), _) => wait.on(socket.as_fd(), PollFlags::POLLIN),
            (Self::Stream(_), Some(connection)) => wait.on(connection.as_fd(), PollFlags::POLLIN),
            (Self::Stream(stream), None) => {
                wait.on(stream.as_fd(), PollFlags::POLLIN).on(stream.taken(), PollFlags::POLLIN)
            }
        }
    }

    /// Writable when it takes another packet.
    pub(crate) fn writable<'a>(&'a self, used: Option<&'a Connection>) -> BorrowedFd<'a> {
        match (self, used) {
            (Self::Tap(pair), _) => pair.out().as_fd(),
            (Self::Datagrams(socket), _) => socket.as_fd(),
            (Self::Stream(_), Some(connection)) => connection.as_fd(),
            (Self::Stream(stream), None) => stream.as_fd(),
        }
    }
}

/// Not in line: a TAP's packets would have to go around it.
#[inline(never)]
fn read_stream(
    stream: &StreamNet,
    used: &mut Option<Arc<Connection>>,
    spill: &mut [u8],
) -> io::Result<Option<Received>> {
    if used.is_none() {
        // Only who has none waits for one.
        stream.forget_taken();
    }
    let Some(connection) = stream.connection()? else {
        *used = None;
        return Ok(None);
    };
    match connection.read(spill) {
        Ok(packet) => {
            *used = Some(connection);
            Ok(packet)
        }
        Err(error) => {
            stream.lose(&connection, &error);
            *used = None;
            Ok(None)
        }
    }
}

/// Whether the TAP says that its queue is not in use.
pub(crate) fn not_attached(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EBADFD as i32)
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tap(pair) => write!(f, "TAP {}", pair.tap().name()),
            Self::Stream(stream) => stream.fmt(f),
            Self::Datagrams(socket) => socket.fmt(f),
        }
    }
}
