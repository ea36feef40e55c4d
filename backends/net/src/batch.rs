//! Packets of the guest that leave together: taken from the ring, checked and, as far as they are
//! small, copied behind headers of our own before the first of them is sent. So there is little between
//! two system calls, and what they push out of the caches is fetched once for all of them. It sends
//! nothing itself.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::collections::VecDeque;
use std::ops::Range;

use atoll_backend::{Chain, ChainFault};

use crate::attachment::TURN;
use crate::header::{HEADER, HeaderFault, SMALL_PACKET, TransmitHeader};
use crate::offload::Features;

/// Packets in a batch, at most.
const MOST: usize = 32;
/// Room for the copies of a batch: as many full Ethernet frames as a first-level cache has room for.
const COPIES: usize = SMALL_PACKET.saturating_mul(16);

/// The driver's buffers or header are not as they should be.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a broken chain")]
    Chain(#[from] ChainFault),
    #[error("a chain too short for a header")]
    NoHeader,
    #[error(transparent)]
    Header(#[from] HeaderFault),
}

/// A packet that was checked. From here on the guest may change its own header as it likes.
#[derive(Debug)]
pub(crate) enum Packet {
    /// Copied, behind its header: where the copy is.
    Copied(Range<usize>),
    /// In the guest's memory; and the header for it.
    InPlace([u8; HEADER]),
}

/// A chain with what is in it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) chain: Chain,
    pub(crate) packet: Result<Packet, Malformed>,
}

/// The batch of one queue.
#[derive(Debug)]
pub(crate) struct Batch {
    packets: VecDeque<Outgoing>,
    /// As long as was ever needed.
    copies: Vec<u8>,
    /// How much of it may be used, and is.
    most: usize,
    filled: usize,
    /// How many bytes the packets have.
    bytes: usize,
    features: Features,
}

impl Batch {
    /// An empty one. Without `copying` there is nothing to gain from copies.
    pub(crate) fn new(features: Features, copying: bool) -> Self {
        let most = if copying { COPIES } else { 0 };
        Self { packets: VecDeque::new(), copies: Vec::new(), most, filled: 0, bytes: 0, features }
    }

    /// Whether it takes no more.
    pub(crate) fn is_full(&self) -> bool {
        let room = self.most.saturating_sub(self.filled);
        self.packets.len() >= MOST || self.is_much() || (self.filled > 0 && room < SMALL_PACKET)
    }

    /// Whether others are to have their turn when it has left.
    pub(crate) fn is_much(&self) -> bool {
        self.bytes >= TURN
    }

    /// Adds the packet in `chain`.
    pub(crate) fn add(&mut self, chain: Chain) {
        let packet = self.take_in(&chain);
        self.packets.push_back(Outgoing { chain, packet });
    }

    fn take_in(&mut self, chain: &Chain) -> Result<Packet, Malformed> {
        let mut reader = chain.reader()?;
        let mut bytes = [0; HEADER];
        if reader.copy_to(&mut bytes) != HEADER {
            return Err(Malformed::NoHeader);
        }
        let header = TransmitHeader::parse(bytes, reader.len(), self.features)?.to_bytes();
        let len = HEADER.saturating_add(reader.len());
        self.bytes = self.bytes.saturating_add(len);
        let end = self.filled.saturating_add(len);
        if len > SMALL_PACKET || end > self.most {
            return Ok(Packet::InPlace(header));
        }
        if self.copies.len() < end {
            self.copies.resize(end, 0);
        }
        match self.copies.get_mut(self.filled..end).and_then(<[u8]>::split_first_chunk_mut) {
            Some((start, rest)) => {
                *start = header;
                reader.copy_to(rest);
                let copy = self.filled..end;
                self.filled = end;
                Ok(Packet::Copied(copy))
            }
            None => Ok(Packet::InPlace(header)),
        }
    }

    /// The bytes of a copy.
    pub(crate) fn copy(&self, copy: &Range<usize>) -> &[u8] {
        self.copies.get(copy.clone()).unwrap_or_default()
    }

    /// The oldest packet. The copies stay until [`clear`](Self::clear).
    pub(crate) fn pop_oldest(&mut self) -> Option<Outgoing> {
        self.packets.pop_front()
    }

    /// Puts the oldest back.
    pub(crate) fn put_back(&mut self, outgoing: Outgoing) {
        self.packets.push_front(outgoing);
    }

    /// The chain of the newest packet.
    pub(crate) fn pop_newest(&mut self) -> Option<Chain> {
        self.packets.pop_back().map(|outgoing| outgoing.chain)
    }

    /// Forgets the copies, and how much they were.
    pub(crate) fn clear(&mut self) {
        (self.filled, self.bytes) = (0, 0);
    }
}
