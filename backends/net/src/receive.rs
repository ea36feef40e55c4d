//! From the TAP, or a socket, to the guest (virtio 1.3 §5.1.6.4): each packet goes into the chains that
//! the driver has made available, several of them for one packet where it accepted that. While large
//! ones come from a TAP they are read straight into those; small ones cost less with a copy, which is made
//! for several of them together.
//!
//! Without chains the TAP is left alone: its packets wait there, or are dropped by the kernel.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use atoll_backend::{Chain, Link, Received, Vring, VringError, Wait, Worker};

use crate::TapError;
use crate::attachment::{Attachment, TURN};
use crate::control::Control;
use crate::filter::{Filter, LOOKED_AT};
use crate::gate::{Gate, Unreceived};
use crate::header::{HEADER, MAX_FRAME, SMALL_PACKET};
use crate::offload::Features;
use crate::one_by_one::OneByOne;
use crate::pair::Served;
use crate::posted::Posted;
use crate::stream::Connection;

/// The largest packet, with its header.
const MAX_PACKET: usize = HEADER.saturating_add(MAX_FRAME);
/// What a packet needs where neither side merges segments: a full Ethernet frame. Larger ones
/// (jumbo frames) still get through, with a copy.
const USUAL_PACKET: usize = HEADER.saturating_add(1518);
/// How long a packet that does not fit waits for the driver to make more chains available. A
/// driver that can will do so while it handles what it has.
const PATIENCE: Duration = Duration::from_millis(20);
/// How many packets after a large one are read straight into the chains, as it would have been.
const STRAIGHT: u32 = 64;
/// Packets in one round, after which the driver is called and a stop is looked for.
const ROUND: usize = 128;
/// Packets that are copied together, at most, and about the room for them: with what they are copied to, as
/// much as a first-level cache has room for.
const TOGETHER: usize = 32;
const COPIES: usize = SMALL_PACKET.saturating_mul(8);

/// A packet that was read: its first bytes may be in the guest's memory, the others are in the spill
/// from `start` on.
#[derive(Clone, Copy)]
struct Packet {
    received: Received,
    start: usize,
}

impl Packet {
    fn len(&self) -> usize {
        self.received.placed.saturating_add(self.received.spilled)
    }

    /// Where its bytes in the spill are.
    fn spilled(&self) -> Range<usize> {
        self.start..self.start.saturating_add(self.received.spilled)
    }
}

/// A packet for which there are not enough chains yet.
struct Held {
    packet: Packet,
    since: Instant,
}

/// What ended a round.
enum Ended {
    /// Others shall have their turn.
    Enough,
    /// No packet is there.
    NoPacket,
    /// No chain is there.
    NoChain,
    /// There are not enough chains for the packet that is held. It waits for so long.
    TooFewChains(Duration),
    /// The limits let the next packet through after that time.
    Throttled(Duration),
}

/// The worker of a receive queue.
pub(crate) struct Receive {
    attachment: Attachment,
    _served: Option<Served>,
    control: Arc<Control>,
    gate: Arc<Gate>,
    /// The control's filter, and its number among the changes.
    filter: Arc<Filter>,
    seen: u64,
    /// Where a stream was read last.
    connection: Option<Arc<Connection>>,
    mergeable: bool,
    /// The room to have before reading a packet.
    wanted: usize,
    posted: Posted,
    held: Option<Held>,
    /// Packets that are about to be copied into the chains that they claimed, each with the number of
    /// these; empty between two calls. And chains that are full.
    waiting: Vec<(Packet, usize)>,
    full: Vec<(Chain, u32)>,
    /// How many packets are still to be read straight into the chains.
    straight: u32,
    one_by_one: OneByOne,
    polling: Duration,
    /// Takes small packets, one behind the other, and what does not fit. Only touched, and so only
    /// resident, as far as those go.
    spill: Box<[u8]>,
    dropped: u64,
}

impl Receive {
    pub(crate) fn new(
        attachment: Attachment,
        control: Arc<Control>,
        gate: Arc<Gate>,
        features: Features,
        polling: Duration,
    ) -> Result<Self, TapError> {
        // Only a checksum is left undone in packets of usual size.
        let segments = features.tap_offload() & !libc::TUN_F_CSUM != 0;
        let seen = control.changes();
        Ok(Self {
            _served: attachment.serve()?,
            attachment,
            filter: control.filter(),
            seen,
            control,
            gate,
            connection: None,
            mergeable: features.mergeable(),
            wanted: if segments { MAX_PACKET } else { USUAL_PACKET },
            posted: Posted::new(features.mergeable()),
            held: None,
            waiting: Vec::new(),
            full: Vec::new(),
            straight: 0,
            one_by_one: OneByOne::default(),
            polling,
            spill: vec![0; COPIES.saturating_add(MAX_PACKET)].into_boxed_slice(),
            dropped: 0,
        })
    }

    /// Whether the limits let a packet through now; else how long to wait. What comes too fast stays
    /// where it is. With the cable pulled nothing waits.
    fn admit(&self) -> Result<(), Duration> {
        if self.gate.is_up() { self.gate.receive.check() } else { Ok(()) }
    }

    /// Reads a packet into the chains, and the spill; `None` when there is none.
    fn read(&mut self, vring: &mut Vring) -> Result<Option<Packet>, VringError> {
        if self.straight > 0 {
            // The chains of those before it are full then.
            self.copy_waiting(vring)?;
        }
        let start = self.waiting.last().map_or(0, |(last, _)| last.spilled().end);
        let room = self.posted.writers().take(if self.straight > 0 { usize::MAX } else { 0 });
        let end = start.saturating_add(MAX_PACKET);
        let spill = self.spill.get_mut(start..end).unwrap_or_default();
        let before = self.connection.as_ref().map(Arc::as_ptr);
        let received = self
            .attachment
            .read(&mut self.connection, room, spill)
            .map_err(|lost| VringError::Device(lost.into()))?;
        let now = self.connection.as_ref().map(Arc::as_ptr);
        if now.is_some() && now != before && self.attachment.is_another() {
            self.control.ask_to_announce();
        }
        let packet = received.map(|received| Packet { received, start });
        if let Some(packet) = packet {
            let large = packet.len() > SMALL_PACKET;
            self.straight = if large { STRAIGHT } else { self.straight.saturating_sub(1) };
        }
        Ok(packet)
    }

    /// Waits for a packet.
    fn until_packet(&self) -> Wait<'_> {
        self.attachment.until_readable(self.connection.as_deref())
    }

    /// Whether the driver wants a packet that was read.
    fn is_wanted(&mut self, packet: Packet) -> bool {
        let changes = self.control.changes();
        if changes != self.seen {
            (self.seen, self.filter) = (changes, self.control.filter());
        }
        self.filter.is_open() || self.passes(packet)
    }

    /// Whether the filter lets it through. Not in line: where there is none packets go around it.
    #[inline(never)]
    fn passes(&self, packet: Packet) -> bool {
        let mut start = [0; HEADER.saturating_add(LOOKED_AT)];
        let len = self.copy_start(packet, &mut start);
        let frame = start.get(HEADER..len).unwrap_or_default();
        self.filter.passes(frame)
    }

    /// Copies the first bytes of a packet. Those in the guest's memory may be any by now, which is
    /// the guest's own affair.
    fn copy_start(&self, packet: Packet, start: &mut [u8]) -> usize {
        let mut copied = 0usize;
        let mut placed = packet.received.placed;
        for mut writer in self.posted.writers() {
            if placed == 0 {
                break;
            }
            let here = writer.len().min(placed);
            let room = start.get_mut(copied..).unwrap_or_default();
            let Some(room) = room.get_mut(..here.min(room.len())) else { break };
            copied = copied.saturating_add(writer.copy_back(room));
            placed = placed.saturating_sub(here);
        }
        let spilled = self.spill.get(packet.spilled()).unwrap_or_default();
        let room = start.get_mut(copied..).unwrap_or_default();
        room.iter_mut().zip(spilled).for_each(|(to, from)| *to = *from);
        copied.saturating_add(room.len().min(spilled.len()))
    }

    /// Gives `packet` the chains that it fills. It fits.
    fn deliver(&mut self, vring: &mut Vring, packet: Packet) -> Result<(), VringError> {
        let chains = self.posted.claim(packet.len());
        self.waiting.push((packet, chains));
        // Behind it there is room for the largest, and more behind that for nothing.
        let is_last = packet.spilled().end > COPIES || packet.received.placed > 0;
        if is_last || self.waiting.len() >= TOGETHER { self.copy_waiting(vring) } else { Ok(()) }
    }

    /// Copies the packets that wait, and completes the chains that they fill.
    fn copy_waiting(&mut self, vring: &mut Vring) -> Result<(), VringError> {
        for (packet, chains) in self.waiting.drain(..) {
            let rest = self.spill.get_mut(packet.spilled()).unwrap_or_default();
            self.posted.fill(chains, packet.received.placed, rest, &mut self.full);
        }
        if self.full.is_empty() { Ok(()) } else { vring.complete_together(self.full.drain(..)) }
    }

    #[cold]
    fn drop_packet(&mut self, why: Unreceived) {
        self.gate.not_received(why);
        if matches!(why, Unreceived::Unwanted | Unreceived::LinkDown) {
            return;
        }
        if self.dropped == 0 {
            tracing::warn!("dropping packets for the guest that do not fit its receive buffers");
        }
        self.dropped = self.dropped.saturating_add(1);
    }

    /// Moves packets until there is nothing left to move, or it is others' turn.
    fn round(&mut self, vring: &mut Vring) -> Result<Ended, VringError> {
        let (mut found, mut moved) = (0_u32, 0_usize);
        for _ in 0..ROUND {
            if moved >= TURN {
                break;
            }
            self.posted.take(vring, self.wanted)?;
            let held = self.held.take();
            let packet = match &held {
                Some(held) => held.packet,
                None if self.posted.is_empty() => return Ok(Ended::NoChain),
                None if self.attachment.wakes_again() && self.one_by_one.is_all(found) => {
                    return Ok(Ended::NoPacket);
                }
                None => {
                    if let Err(wait) = self.admit() {
                        vring.count_throttled();
                        return Ok(Ended::Throttled(wait));
                    }
                    let Some(packet) = self.read(vring)? else {
                        self.one_by_one.ended(found);
                        return Ok(Ended::NoPacket);
                    };
                    found = found.saturating_add(1);
                    packet
                }
            };
            let len = packet.len();
            moved = moved.saturating_add(len);
            if !(HEADER..=MAX_PACKET).contains(&len) {
                self.drop_packet(Unreceived::Length);
            } else if !self.gate.is_up() {
                self.drop_packet(Unreceived::LinkDown);
            } else if held.is_none() && !self.is_wanted(packet) {
                // The next one takes its place.
                self.drop_packet(Unreceived::Unwanted);
            } else if len <= self.posted.packet_room() {
                self.gate.receive.charge(len.saturating_sub(HEADER) as u64);
                self.deliver(vring, packet)?;
            } else if self.mergeable {
                let since = held.map_or_else(Instant::now, |held| held.since);
                let left = PATIENCE.saturating_sub(since.elapsed());
                if left.is_zero() {
                    self.drop_packet(Unreceived::NoRoom);
                    continue;
                }
                self.held = Some(Held { packet, since });
                self.wanted = self.wanted.max(len);
                return Ok(Ended::TooFewChains(left));
            } else {
                self.drop_packet(Unreceived::NoRoom);
            }
        }
        Ok(Ended::Enough)
    }
}

impl Worker for Receive {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        let ended = self.round(vring);
        // If the ring is broken, what came before that arrives all the same.
        self.copy_waiting(vring)?;
        Ok(match ended? {
            Ended::Enough => Wait::nothing(),
            Ended::NoPacket => self.until_packet(),
            Ended::NoChain => Wait::kick().polling(self.polling),
            Ended::TooFewChains(time) => Wait::kick().within(time),
            Ended::Throttled(time) => Wait::no_kick().within(time),
        })
    }

    fn drain(&mut self, vring: &mut Vring) -> Result<(), VringError> {
        // As a cable that is pulled, a stop may cost a packet that was on its way.
        self.held = None;
        self.posted.give_back(vring)?;
        if self.dropped > 0 {
            tracing::info!("{} packets for the guest were dropped", self.dropped);
        }
        Ok(())
    }
}
