//! The chains that the driver has made available for packets, taken from the ring ahead and kept until
//! packets fill them: which of them a packet gets, and its bytes put there. It reads no packets.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::collections::VecDeque;

use atoll_backend::{Chain, Vring, VringError, Writer};

use crate::header::{HEADER, NUM_BUFFERS};

/// How many chains are taken together, beyond those that are needed at once: what taking them pushes
/// out of the caches is fetched once for all of them.
const AHEAD: usize = 16;

/// Chains that are not filled yet, oldest first.
pub(crate) struct Posted {
    /// Whether one packet may fill several (VIRTIO_NET_F_MRG_RXBUF).
    mergeable: bool,
    /// Those that packets have claimed, then those that are free, and the room of these.
    chains: VecDeque<Chain>,
    claimed: usize,
    room: usize,
}

impl Posted {
    pub(crate) fn new(mergeable: bool) -> Self {
        Self { mergeable, chains: VecDeque::new(), claimed: 0, room: 0 }
    }

    /// Takes chains if there is less room than `wanted` for a packet, until there is, and some more; or
    /// no more of them.
    pub(crate) fn take(&mut self, vring: &mut Vring, wanted: usize) -> Result<(), VringError> {
        if !self.lacks(wanted) {
            return Ok(());
        }
        let mut more = AHEAD;
        while more > 0 {
            let Some(chain) = vring.next()? else { break };
            let room = room(&chain);
            if room < HEADER {
                refuse(vring, chain)?;
                continue;
            }
            self.room = self.room.saturating_add(room);
            self.chains.push_back(chain);
            if !self.lacks(wanted) {
                more = more.saturating_sub(1);
            }
        }
        Ok(())
    }

    fn lacks(&self, wanted: usize) -> bool {
        if self.mergeable { self.room < wanted } else { self.is_empty() }
    }

    /// Whether no chain is free.
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.len() <= self.claimed
    }

    /// The room that one packet may fill.
    pub(crate) fn packet_room(&self) -> usize {
        match self.chains.get(self.claimed) {
            Some(first) if !self.mergeable => room(first),
            _ => self.room,
        }
    }

    /// The room that one packet may fill, piece by piece.
    pub(crate) fn writers(&self) -> impl Iterator<Item = Writer<'_>> {
        let most = if self.mergeable { usize::MAX } else { 1 };
        self.chains.iter().skip(self.claimed).take(most).filter_map(|chain| chain.writer().ok())
    }

    /// Claims the chains for a packet of `len` bytes, which fits. Returns how many those are.
    pub(crate) fn claim(&mut self, len: usize) -> usize {
        let (mut covered, mut count) = (0usize, 0usize);
        while covered < len {
            let Some(chain) = self.chains.get(self.claimed.saturating_add(count)) else { break };
            covered = covered.saturating_add(room(chain));
            count = count.saturating_add(1);
        }
        self.claimed = self.claimed.saturating_add(count);
        self.room = self.room.saturating_sub(covered);
        count
    }

    /// Fills the oldest claimed chains, of which one packet has claimed `count`: with `rest`, behind
    /// the `placed` bytes that are there already. They go to `done`, each with the bytes in it.
    pub(crate) fn fill(
        &mut self,
        count: usize,
        mut placed: usize,
        rest: &mut [u8],
        done: &mut Vec<(Chain, u32)>,
    ) {
        // virtio 1.3 §5.1.6.4.1: the number of chains, and 1 without VIRTIO_NET_F_MRG_RXBUF. The kernel
        // leaves the field to us. No ring has more chains than 16 bits can say.
        let num_buffers = (count as u16).to_le_bytes();
        if let Some(field) = rest.get_mut(NUM_BUFFERS..HEADER).filter(|_| placed == 0) {
            field.copy_from_slice(&num_buffers);
        } else if let Some(Ok(mut first)) = self.chains.front().map(Chain::writer) {
            first.skip(NUM_BUFFERS);
            first.copy_from(&num_buffers);
        }
        let mut rest = &*rest;
        for _ in 0..count {
            let Some(chain) = self.chains.pop_front() else { break };
            self.claimed = self.claimed.saturating_sub(1);
            let mut written = 0;
            if let Ok(mut writer) = chain.writer() {
                written = placed.min(writer.len());
                placed = placed.saturating_sub(written);
                // Of a packet that was read into them there may be none.
                if !rest.is_empty() {
                    writer.skip(written);
                    let copied = writer.copy_from(rest);
                    rest = rest.get(copied..).unwrap_or_default();
                    written = written.saturating_add(copied);
                }
            }
            // A packet is far below 4 GiB.
            done.push((chain, written as u32));
        }
    }

    /// Gives all of them back, as packets that have claimed some are forgotten. Those in the ring before
    /// one that was of no use can't be taken again without that one: the driver gets them back unused.
    pub(crate) fn give_back(&mut self, vring: &mut Vring) -> Result<(), VringError> {
        (self.claimed, self.room) = (0, 0);
        while let Some(chain) = self.chains.pop_back() {
            if vring.takes_back(&chain) {
                vring.give_back(chain)?;
            } else {
                vring.complete(chain, 0)?;
            }
        }
        Ok(())
    }
}

/// Broken, or of no use: the driver gets it back unused.
#[cold]
fn refuse(vring: &mut Vring, chain: Chain) -> Result<(), VringError> {
    tracing::debug!("a receive chain with {} bytes of room", room(&chain));
    vring.complete(chain, 0)
}

/// The bytes that can be written to a chain: none if it is broken.
fn room(chain: &Chain) -> usize {
    chain.writer().map_or(0, |writer| writer.len())
}
