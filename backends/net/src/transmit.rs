//! From the guest to the TAP, or a socket: one packet a chain (virtio 1.3 §5.1.6.2),
//! written behind a header of our own, and, if it is large, straight out of the guest's buffers.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use atoll_backend::{Chain, ChainFault, Link, Reader, Vring, VringError, Wait, Worker};
use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::attachment::{Attachment, not_attached};
use crate::gate::{Gate, Untransmitted};
use crate::header::{HEADER, HeaderFault, SMALL_PACKET, TransmitHeader};
use crate::offload::Features;
use crate::stream::{Connection, StreamNet};

/// A packet does not leave.
#[derive(Debug, thiserror::Error)]
enum Unsent {
    #[error("a broken chain")]
    Chain(#[from] ChainFault),
    #[error("a chain too short for a header")]
    NoHeader,
    #[error(transparent)]
    Header(#[from] HeaderFault),
    #[error("TAP {name} is down; `ip link set {name} up` lets them pass")]
    Down { name: String },
    #[error("the kernel refuses it")]
    Refused(#[source] Errno),
    /// The queue is full; it goes later.
    #[error("the host takes no more")]
    Later,
    #[error("nobody is at the other end")]
    NoNetwork(#[source] io::Error),
    /// The interface was deleted.
    #[error("TAP {name} is gone")]
    TapGone { name: String },
    #[error("the cable is pulled")]
    LinkDown,
}

impl Unsent {
    fn reason(&self) -> Untransmitted {
        match self {
            Self::Chain(_) | Self::NoHeader | Self::Header(_) => Untransmitted::Malformed,
            Self::Down { .. } | Self::TapGone { .. } => Untransmitted::HostDown,
            Self::Refused(_) | Self::Later => Untransmitted::Refused,
            Self::NoNetwork(_) => Untransmitted::NoNetwork,
            Self::LinkDown => Untransmitted::LinkDown,
        }
    }
}

/// The worker of a transmit queue.
pub(crate) struct Transmit {
    attachment: Attachment,
    /// Where a stream was written last.
    connection: Option<Arc<Connection>>,
    gate: Arc<Gate>,
    features: Features,
    /// For small packets.
    copy: Box<[u8]>,
    polling: Duration,
    dropped: u64,
}

impl Transmit {
    pub(crate) fn new(
        attachment: Attachment,
        gate: Arc<Gate>,
        features: Features,
        polling: Duration,
    ) -> Self {
        let copy = vec![0; SMALL_PACKET].into_boxed_slice();
        Self { attachment, connection: None, gate, features, copy, polling, dropped: 0 }
    }

    /// Whether the limits let the chain through now; else how long to wait. With the cable pulled
    /// nothing waits, and neither does what a process before this one left in flight: the ring may be
    /// about to stop.
    fn admit(&self, chain: &Chain) -> Result<(), Duration> {
        if chain.is_resubmitted() || !self.gate.is_up() {
            return Ok(());
        }
        self.gate.transmit.check()
    }

    fn send(&mut self, chain: &Chain) -> Result<(), Unsent> {
        if !self.gate.is_up() {
            return Err(Unsent::LinkDown);
        }
        let mut reader = chain.reader()?;
        let mut bytes = [0; HEADER];
        if reader.copy_to(&mut bytes) != HEADER {
            return Err(Unsent::NoHeader);
        }
        // From here on the guest may change its copy as it likes.
        let header = TransmitHeader::parse(bytes, reader.len(), self.features)?;
        self.write(&mut reader, &header.to_bytes())
    }

    fn write(&mut self, frame: &mut Reader<'_>, header: &[u8]) -> Result<(), Unsent> {
        let pair = match &self.attachment {
            Attachment::Tap(pair) => pair,
            Attachment::Stream(stream) => return to_stream(stream, &mut self.connection, frame),
            Attachment::Datagrams(socket) => {
                return socket.write(frame).map_err(|error| match error.kind() {
                    ErrorKind::WouldBlock => Unsent::Later,
                    _ => Unsent::NoNetwork(error),
                });
            }
        };
        let tap = pair.out();
        let mut written = frame.write_copied(tap.as_fd(), header, &mut self.copy);
        if written.as_ref().is_err_and(not_attached) && !pair.is_gone() {
            // It went out of use this moment, and another is there.
            written = frame.write_copied(pair.out().as_fd(), header, &mut self.copy);
        }
        written.map(drop).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => Unsent::Later,
            _ => match errno(&error) {
                Errno::EBADFD => Unsent::TapGone { name: tap.name().to_owned() },
                Errno::EIO => Unsent::Down { name: tap.name().to_owned() },
                errno => Unsent::Refused(errno),
            },
        })
    }

    /// What says that more can be sent.
    fn room(&self) -> BorrowedFd<'_> {
        self.attachment.writable(self.connection.as_deref())
    }

    /// Also waits until the end of a frame that went in part can go, which is as soon as it can.
    fn until_flushed<'a>(&'a self, wait: Wait<'a>) -> Wait<'a> {
        match &self.connection {
            Some(connection)
                if connection.flush().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) =>
            {
                wait.on(self.room(), PollFlags::POLLOUT)
            }
            _ => wait,
        }
    }

    /// As on a wire, the driver learns nothing of it. The log does, the first time.
    fn drop_packet(&mut self, reason: &Unsent) {
        self.gate.not_transmitted(reason.reason());
        if matches!(reason, Unsent::LinkDown) {
            return;
        }
        if self.dropped == 0 {
            tracing::warn!(
                error = reason as &dyn std::error::Error,
                "dropping packets from the guest"
            );
        }
        self.dropped = self.dropped.saturating_add(1);
    }
}

impl Worker for Transmit {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        while let Some(chain) = vring.next()? {
            if let Err(wait) = self.admit(&chain) {
                vring.count_throttled();
                vring.give_back(chain)?;
                return Ok(self.until_flushed(Wait::no_kick().within(wait)));
            }
            match self.send(&chain) {
                Ok(()) => {
                    let bytes = chain.readable_bytes().saturating_sub(HEADER as u64);
                    self.gate.transmit.charge(bytes);
                }
                Err(Unsent::Later) => {
                    vring.give_back(chain)?;
                    return Ok(Wait::no_kick().on(self.room(), PollFlags::POLLOUT));
                }
                Err(gone @ Unsent::TapGone { .. }) => {
                    vring.give_back(chain)?;
                    return Err(VringError::Device(gone.into()));
                }
                Err(reason) => self.drop_packet(&reason),
            }
            vring.complete(chain, 0)?;
        }
        Ok(self.until_flushed(Wait::kick().polling(self.polling)))
    }

    fn drain(&mut self, _vring: &mut Vring) -> Result<(), VringError> {
        if self.dropped > 0 {
            tracing::info!("{} packets from the guest were dropped", self.dropped);
        }
        Ok(())
    }
}

fn to_stream(
    stream: &StreamNet,
    used: &mut Option<Arc<Connection>>,
    frame: &mut Reader<'_>,
) -> Result<(), Unsent> {
    // When it will never be there again, the receive queue says so.
    *used = None;
    let connection = stream
        .connection()
        .and_then(|connection| connection.ok_or_else(|| io::Error::from(ErrorKind::NotConnected)));
    let connection = connection.map_err(Unsent::NoNetwork)?;
    let written = connection.write(frame).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => Unsent::Later,
        _ => {
            stream.lose(&connection, &error);
            Unsent::NoNetwork(error)
        }
    });
    *used = Some(connection);
    written
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}
