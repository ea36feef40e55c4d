//! From the TAP, or a socket, to the guest (virtio 1.3 §5.1.6.4): each packet goes into the chains that
//! the driver has made available, several of them for one packet where it accepted that. While large
//! ones come from a TAP they are read straight into those; small ones cost less with a copy.
//!
//! Chains are taken ahead, as many as the largest packet may need, and kept until packets fill
//! them. Without any the TAP is left alone: its packets wait there, or are dropped by the kernel.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use atoll_backend::{Chain, Link, Received, Vring, VringError, Wait, Worker};

use crate::TapError;
use crate::attachment::Attachment;
use crate::control::Control;
use crate::filter::{Filter, LOOKED_AT};
use crate::gate::{Gate, Unreceived};
use crate::header::{HEADER, MAX_FRAME, NUM_BUFFERS, SMALL_PACKET};
use crate::offload::Features;
use crate::pair::Served;
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
const ROUND: usize = 64;

/// A packet whose first bytes are in the guest's memory and whose others wait in the spill.
struct Held {
    packet: Received,
    since: Instant,
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
    /// Chains taken from the ring and not filled yet, oldest first, and their room.
    posted: VecDeque<Chain>,
    room: usize,
    held: Option<Held>,
    /// How many packets are still to be read straight into the chains.
    straight: u32,
    polling: Duration,
    /// Takes small packets, and what does not fit. Only touched, and so only resident, as far as the
    /// largest of those goes.
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
            posted: VecDeque::new(),
            room: 0,
            held: None,
            straight: 0,
            polling,
            spill: vec![0; MAX_PACKET].into_boxed_slice(),
            dropped: 0,
        })
    }

    /// Takes chains until there is room for a packet, or no more of them.
    fn post(&mut self, vring: &mut Vring) -> Result<(), VringError> {
        while self.packet_room() < self.wanted && (self.mergeable || self.posted.is_empty()) {
            let Some(chain) = vring.next()? else { break };
            let room = room(&chain);
            if room < HEADER {
                // Broken, or of no use: the driver gets it back unused.
                tracing::debug!("a receive chain with {room} bytes of room");
                vring.complete(chain, 0)?;
                continue;
            }
            self.room = self.room.saturating_add(room);
            self.posted.push_back(chain);
        }
        Ok(())
    }

    /// The room that one packet may fill.
    fn packet_room(&self) -> usize {
        match self.posted.front() {
            Some(first) if !self.mergeable => room(first),
            _ => self.room,
        }
    }

    /// Whether the limits let a packet through now; else how long to wait. What comes too fast stays
    /// where it is. With the cable pulled nothing waits.
    fn admit(&self) -> Result<(), Duration> {
        if self.gate.is_up() { self.gate.receive.check() } else { Ok(()) }
    }

    /// Reads a packet into the chains, and the spill; `None` when there is none.
    fn read(&mut self) -> Result<Option<Received>, VringError> {
        let chains = match self.straight {
            0 => 0,
            _ if self.mergeable => self.posted.len(),
            _ => 1,
        };
        let room = self.posted.iter().take(chains).filter_map(|chain| chain.writer().ok());
        let before = self.connection.as_ref().map(Arc::as_ptr);
        let packet = self
            .attachment
            .read(&mut self.connection, room, &mut self.spill)
            .map_err(|lost| VringError::Device(lost.into()))?;
        let now = self.connection.as_ref().map(Arc::as_ptr);
        if now.is_some() && now != before && self.attachment.is_another() {
            self.control.ask_to_announce();
        }
        if let Some(packet) = packet {
            let len = packet.placed.saturating_add(packet.spilled);
            self.straight =
                if len > SMALL_PACKET { STRAIGHT } else { self.straight.saturating_sub(1) };
        }
        Ok(packet)
    }

    /// Waits for a packet.
    fn until_packet(&self) -> Wait<'_> {
        self.attachment.until_readable(self.connection.as_deref())
    }

    /// Whether the driver wants a packet that was read.
    fn is_wanted(&mut self, packet: Received) -> bool {
        let changes = self.control.changes();
        if changes != self.seen {
            (self.seen, self.filter) = (changes, self.control.filter());
        }
        if self.filter.is_open() {
            return true;
        }
        let mut start = [0; HEADER.saturating_add(LOOKED_AT)];
        let len = self.copy_start(packet, &mut start);
        let frame = start.get(HEADER..len).unwrap_or_default();
        self.filter.passes(frame)
    }

    /// Copies the first bytes of a packet. Those in the guest's memory may be any by now, which is
    /// the guest's own affair.
    fn copy_start(&self, packet: Received, start: &mut [u8]) -> usize {
        let mut copied = 0usize;
        let mut placed = packet.placed;
        for mut writer in self.posted.iter().filter_map(|chain| chain.writer().ok()) {
            if placed == 0 {
                break;
            }
            let here = writer.len().min(placed);
            let room = start.get_mut(copied..).unwrap_or_default();
            let Some(room) = room.get_mut(..here.min(room.len())) else { break };
            copied = copied.saturating_add(writer.copy_back(room));
            placed = placed.saturating_sub(here);
        }
        let spilled = self.spill.get(..packet.spilled).unwrap_or_default();
        let room = start.get_mut(copied..).unwrap_or_default();
        room.iter_mut().zip(spilled).for_each(|(to, from)| *to = *from);
        copied.saturating_add(room.len().min(spilled.len()))
    }

    /// Completes the chains that `packet` fills. It fits.
    fn deliver(&mut self, vring: &mut Vring, packet: Received) -> Result<(), VringError> {
        let len = packet.placed.saturating_add(packet.spilled);
        let mut covered = 0usize;
        let chains = self.posted.iter().take_while(|chain| {
            let needed = covered < len;
            covered = covered.saturating_add(room(chain));
            needed
        });
        let count = chains.count();
        self.place_spill(packet, count);
        self.write_num_buffers(count);
        let mut left = len;
        let filled = self.posted.drain(..count).map(|chain| {
            let room = room(&chain);
            let written = left.min(room);
            left = left.saturating_sub(written);
            self.room = self.room.saturating_sub(room);
            // A packet is far below 4 GiB.
            (chain, written as u32)
        });
        vring.complete_together(filled)
    }

    /// Copies what spilled behind what was placed.
    fn place_spill(&self, packet: Received, chains: usize) {
        let mut skip = packet.placed;
        let mut rest = self.spill.get(..packet.spilled).unwrap_or_default();
        for chain in self.posted.iter().take(chains) {
            let Ok(mut writer) = chain.writer() else { continue };
            let filled = skip.min(writer.len());
            writer.skip(filled);
            skip = skip.saturating_sub(filled);
            let copied = writer.copy_from(rest);
            rest = rest.get(copied..).unwrap_or_default();
        }
    }

    /// virtio 1.3 §5.1.6.4.1: the number of chains, and 1 without VIRTIO_NET_F_MRG_RXBUF. The
    /// kernel leaves the field to us.
    fn write_num_buffers(&self, chains: usize) {
        let Some(Ok(mut writer)) = self.posted.front().map(Chain::writer) else { return };
        writer.skip(NUM_BUFFERS);
        // No ring has more chains than 16 bits can say.
        writer.copy_from(&(chains as u16).to_le_bytes());
    }

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
}

impl Worker for Receive {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        for _ in 0..ROUND {
            self.post(vring)?;
            let held = self.held.take();
            let packet = match &held {
                Some(held) => held.packet,
                None if self.posted.is_empty() => return Ok(Wait::kick().polling(self.polling)),
                None => {
                    if let Err(wait) = self.admit() {
                        vring.count_throttled();
                        return Ok(Wait::no_kick().within(wait));
                    }
                    match self.read()? {
                        Some(packet) => packet,
                        None => return Ok(self.until_packet()),
                    }
                }
            };
            let len = packet.placed.saturating_add(packet.spilled);
            if !(HEADER..=MAX_PACKET).contains(&len) {
                self.drop_packet(Unreceived::Length);
            } else if !self.gate.is_up() {
                self.drop_packet(Unreceived::LinkDown);
            } else if held.is_none() && !self.is_wanted(packet) {
                // The next one takes its place.
                self.drop_packet(Unreceived::Unwanted);
            } else if len <= self.packet_room() {
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
                return Ok(Wait::kick().within(left));
            } else {
                self.drop_packet(Unreceived::NoRoom);
            }
        }
        Ok(Wait::nothing())
    }

    fn drain(&mut self, vring: &mut Vring) -> Result<(), VringError> {
        // As a cable that is pulled, a stop may cost a packet that was on its way.
        self.held = None;
        self.room = 0;
        while let Some(chain) = self.posted.pop_back() {
            vring.give_back(chain)?;
        }
        if self.dropped > 0 {
            tracing::info!("{} packets for the guest were dropped", self.dropped);
        }
        Ok(())
    }
}

/// The bytes that can be written to a chain: none if it is broken.
fn room(chain: &Chain) -> usize {
    chain.writer().map_or(0, |writer| writer.len())
}
