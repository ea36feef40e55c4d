//! Output that nobody has taken yet, bounded: when it is full the oldest goes.

use std::collections::VecDeque;

/// What is kept while nobody is attached: some 800 lines.
const LIMIT: usize = 64 * 1024;

/// Bytes in the order in which the guest printed them.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    bytes: VecDeque<u8>,
    lost: u64,
}

impl Backlog {
    /// Adds to the end, at the cost of the beginning where there is no room.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(LIMIT);
        self.bytes.drain(..excess);
        self.lost = self.lost.saturating_add(excess as u64);
    }

    /// The first bytes, as many as stand together.
    pub(crate) fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    /// Forgets the first `count` bytes: somebody has them.
    pub(crate) fn consume(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
    }

    /// Whether all has been taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes went untaken since this was asked last.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
#[path = "backlog_test.rs"]
mod tests;
