//! The newest of what the guest printed, bounded, by position in all that it ever printed. It knows
//! no reader.

/// What is kept: some 3000 lines, or what is on its way to readers that are slower than the guest.
pub(crate) const CAPACITY: usize = 256 * 1024;

/// A ring of bytes. Position 0 is the first byte ever printed.
pub(crate) struct History {
    /// Touched, and so resident, only as far as there was something to keep.
    ring: Box<[u8]>,
    /// The position after the newest byte.
    end: u64,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { ring: vec![0; CAPACITY].into_boxed_slice(), end: 0 }
    }

    /// The position after the newest byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The position of the oldest byte that is kept.
    pub(crate) fn oldest(&self) -> u64 {
        self.end.saturating_sub(CAPACITY as u64)
    }

    /// How many bytes may be added without forgetting any at or behind `position`.
    pub(crate) fn room_before(&self, position: u64) -> usize {
        CAPACITY.saturating_sub(self.end.saturating_sub(position) as usize)
    }

    /// Where the next bytes go, at most `limit` of them and as many as stand together.
    pub(crate) fn room(&mut self, limit: usize) -> &mut [u8] {
        let start = place(self.end);
        let end = start.saturating_add(limit).min(CAPACITY);
        self.ring.get_mut(start..end).unwrap_or_default()
    }

    /// The first `count` bytes of the room were filled; the oldest bytes go for them.
    pub(crate) fn add(&mut self, count: usize) {
        self.end = self.end.saturating_add(count as u64);
    }

    /// The bytes from `position` on, which is kept, as many as stand together.
    pub(crate) fn from(&self, position: u64) -> &[u8] {
        let start = place(position);
        let count = self.end.saturating_sub(position) as usize;
        let end = start.saturating_add(count).min(CAPACITY);
        self.ring.get(start..end).unwrap_or_default()
    }
}

fn place(position: u64) -> usize {
    // Less than the capacity.
    (position % CAPACITY as u64) as usize
}

#[cfg(test)]
#[path = "history_test.rs"]
mod tests;
