//! What was typed and is on its way to the guest, bounded.

use atoll_backend::Writer;

/// What is kept at most.
const CAPACITY: usize = 64 * 1024;

/// What is read at once at least, as far as it is there.
const LEAST: usize = 4 * 1024;

/// One buffer, filled from its start.
pub(crate) struct Keys {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; CAPACITY].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Whether everything was passed on.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether more may be read.
    pub(crate) fn has_room(&self) -> bool {
        self.end.saturating_sub(self.start) <= CAPACITY.saturating_sub(LEAST)
    }

    /// Takes what `read` reads, behind what is there. Returns what it returns.
    pub(crate) fn fill<E>(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> Result<Option<usize>, E>,
    ) -> Result<Option<usize>, E> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end.saturating_sub(self.start));
        let typed = read(self.buffer.get_mut(self.end..).unwrap_or_default())?;
        self.end = self.end.saturating_add(typed.unwrap_or(0));
        Ok(typed)
    }

    /// Passes on as much as there is room for.
    pub(crate) fn copy_to(&mut self, room: &mut Writer<'_>) -> usize {
        let copied = room.copy_from(self.buffer.get(self.start..self.end).unwrap_or_default());
        self.start = self.start.saturating_add(copied);
        copied
    }
}
