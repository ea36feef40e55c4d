//! From the guest to the TAP, or a socket: one packet a chain (virtio 1.3 §5.1.6.2),
//! written behind a header of our own, and, if it is large, straight out of the guest's buffers. Those
//! that wait in the ring leave in batches.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use atoll_backend::{Chain, Link, Reader, Vring, VringError, Wait, Worker, write_packet};
use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::Tap;
use crate::attachment::{Attachment, not_attached};
use crate::batch::{Batch, Malformed, Outgoing, Packet};
use crate::datagrams::Datagrams;
use crate::gate::{Gate, Untransmitted};
use crate::header::HEADER;
use crate::offload::Features;
use crate::pair::Pair;
use crate::stream::{Connection, StreamNet};

/// How often in a row a queue of datagrams that is full is tried again at once. Somebody who reads them
/// has taken some by then.
const TRIES: u32 = 64;
/// How long it is left alone after that: twice as long each time, up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(8);

/// A packet does not leave.
#[derive(Debug, thiserror::Error)]
enum Unsent {
    #[error(transparent)]
    Malformed(#[from] Malformed),
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
            Self::Malformed(_) => Untransmitted::Malformed,
            Self::Down { .. } | Self::TapGone { .. } => Untransmitted::HostDown,
            Self::Refused(_) | Self::Later => Untransmitted::Refused,
            Self::NoNetwork(_) => Untransmitted::NoNetwork,
            Self::LinkDown => Untransmitted::LinkDown,
        }
    }
}

/// What ended the gathering of packets.
enum Gathered {
    /// There are enough for now.
    Enough,
    /// There are so many bytes that it is others' turn then.
    Much,
    /// There are no more.
    All,
    /// The limits let the next one through after that time.
    Throttled(Duration),
}

/// The worker of a transmit queue.
pub(crate) struct Transmit {
    attachment: Attachment,
    /// Where a stream was written last.
    connection: Option<Arc<Connection>>,
    gate: Arc<Gate>,
    /// Empty between two calls, and so is `done`: what left and is not completed yet.
    batch: Batch,
    done: Vec<Chain>,
    polling: Duration,
    /// How often in a row the other end had no room for datagrams.
    full: u32,
    dropped: u64,
}

impl Transmit {
    pub(crate) fn new(
        attachment: Attachment,
        gate: Arc<Gate>,
        features: Features,
        polling: Duration,
    ) -> Self {
        let batch = Batch::new(features, matches!(attachment, Attachment::Tap(_)));
        let (connection, done) = (None, Vec::new());
        Self { attachment, connection, gate, batch, done, polling, full: 0, dropped: 0 }
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

    /// Gathers what can leave together.
    fn gather(&mut self, vring: &mut Vring) -> Result<Gathered, VringError> {
        while !self.batch.is_full() {
            let Some(chain) = vring.next()? else { return Ok(Gathered::All) };
            if let Err(wait) = self.admit(&chain) {
                vring.count_throttled();
                vring.give_back(chain)?;
                return Ok(Gathered::Throttled(wait));
            }
            self.batch.add(chain);
            if self.gate.transmit.is_set() {
                // What left is charged before the next is let through.
                break;
            }
        }
        Ok(if self.batch.is_much() { Gathered::Much } else { Gathered::Enough })
    }

    /// Sends what was gathered. Returns why the rest of it could not leave, which is in the ring again.
    fn send_all(&mut self, vring: &mut Vring) -> Result<Option<Unsent>, VringError> {
        let mut stopped = None;
        while let Some(outgoing) = self.batch.pop_oldest() {
            match self.send(&outgoing) {
                Ok(()) => {
                    let bytes = outgoing.chain.readable_bytes().saturating_sub(HEADER as u64);
                    self.gate.transmit.charge(bytes);
                }
                Err(reason @ (Unsent::Later | Unsent::TapGone { .. })) => {
                    stopped = Some(reason);
                    self.batch.put_back(outgoing);
                    break;
                }
                Err(reason) => self.drop_packet(&reason),
            }
            self.done.push(outgoing.chain);
        }
        if !self.done.is_empty() {
            self.full = 0;
            vring.complete_together(self.done.drain(..).map(|chain| (chain, 0)))?;
            // Early enough for it to have more for us before we are done with the next ones.
            vring.call_if_wanted()?;
        }
        while let Some(chain) = self.batch.pop_newest() {
            vring.give_back(chain)?;
        }
        self.batch.clear();
        Ok(stopped)
    }

    fn send(&mut self, outgoing: &Outgoing) -> Result<(), Unsent> {
        if !self.gate.is_up() {
            return Err(Unsent::LinkDown);
        }
        let packet = match &outgoing.packet {
            Ok(packet) => packet,
            Err(fault) => return Err(Unsent::Malformed(*fault)),
        };
        let mut frame = outgoing.chain.reader().map_err(Malformed::from)?;
        frame.skip(HEADER);
        match &self.attachment {
            Attachment::Tap(pair) => self.to_tap(pair, &mut frame, packet),
            Attachment::Stream(stream) => to_stream(stream, &mut self.connection, &mut frame),
            Attachment::Datagrams(socket) => to_datagrams(socket, &mut frame),
        }
    }

    fn to_tap(&self, pair: &Pair, frame: &mut Reader<'_>, packet: &Packet) -> Result<(), Unsent> {
        let mut write = |tap: &Tap| match packet {
            Packet::Copied(copy) => write_packet(tap.as_fd(), self.batch.copy(copy)),
            Packet::InPlace(header) => frame.write_packet(tap.as_fd(), header),
        };
        let tap = pair.out();
        let mut written = write(tap);
        if written.as_ref().is_err_and(not_attached) && !pair.is_gone() {
            // It went out of use this moment, and another is there.
            written = write(pair.out());
        }
        written.map(drop).map_err(|error| refused(tap, &error))
    }

    /// Waits until more can be sent.
    fn until_room(&mut self) -> Wait<'_> {
        if !matches!(self.attachment, Attachment::Datagrams(_)) {
            return Wait::no_kick().on(self.room(), PollFlags::POLLOUT);
        }
        // Without a connection poll(2) does not look at the queue of the other end, which has room for so
        // many datagrams (net.unix.max_dgram_qlen), but at how many bytes of ours are on their way.
        self.full = self.full.saturating_add(1);
        let Some(pauses) = self.full.checked_sub(TRIES) else { return Wait::nothing() };
        let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(pauses).unwrap_or(u32::MAX));
        Wait::no_kick().within(pause.min(LONGEST_PAUSE))
    }

    /// What says that more can be sent.
    fn room(&self) -> BorrowedFd<'_> {
        self.attachment.writable(self.connection.as_deref())
    }

    /// Also waits until the end of a frame that went in part can go, which is as soon as it can.
    fn until_flushed<'a>(&'a self, wait: Wait<'a>) -> Wait<'a> {
        match &self.connection {
            Some(connection) => self.until_written(connection, wait),
            None => wait,
        }
    }

    #[inline(never)]
    fn until_written<'a>(&'a self, connection: &Connection, wait: Wait<'a>) -> Wait<'a> {
        match connection.flush() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait.on(self.room(), PollFlags::POLLOUT)
            }
            _ => wait,
        }
    }

    /// As on a wire, the driver learns nothing of it. The log does, the first time.
    #[cold]
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
        loop {
            // If the ring is broken, what came before that leaves all the same.
            let gathered = self.gather(vring);
            match self.send_all(vring)? {
                None => {}
                Some(gone @ Unsent::TapGone { .. }) => return Err(VringError::Device(gone.into())),
                Some(_later) => return Ok(self.until_room()),
            }
            match gathered? {
                Gathered::Enough => {}
                Gathered::Much => return Ok(Wait::nothing()),
                Gathered::All => return Ok(self.until_flushed(Wait::kick().polling(self.polling))),
                Gathered::Throttled(wait) => {
                    return Ok(self.until_flushed(Wait::no_kick().within(wait)));
                }
            }
        }
    }

    fn drain(&mut self, _vring: &mut Vring) -> Result<(), VringError> {
        if self.dropped > 0 {
            tracing::info!("{} packets from the guest were dropped", self.dropped);
        }
        Ok(())
    }
}

/// Why a TAP does not take a packet.
#[cold]
fn refused(tap: &Tap, error: &io::Error) -> Unsent {
    match error.kind() {
        ErrorKind::WouldBlock => Unsent::Later,
        _ => match errno(error) {
            Errno::EBADFD => Unsent::TapGone { name: tap.name().to_owned() },
            Errno::EIO => Unsent::Down { name: tap.name().to_owned() },
            errno => Unsent::Refused(errno),
        },
    }
}

/// Not in line, and neither is the next: a TAP's packets would have to go around it.
#[inline(never)]
fn to_datagrams(socket: &Datagrams, frame: &mut Reader<'_>) -> Result<(), Unsent> {
    socket.write(frame).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => Unsent::Later,
        _ => Unsent::NoNetwork(error),
    })
}

#[inline(never)]
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
