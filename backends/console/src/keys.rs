//! What was typed and is on its way into the pipe to the guest, bounded.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::unistd::write;

use crate::outlet::Outlet;

/// What is read at once: all that a pipe holds.
const CHUNK: usize = 64 * 1024;

/// One buffer, filled only when it is empty.
pub(crate) struct Keys {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; CHUNK].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Whether everything was passed on, so that more may be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes what was typed. False at the end of it.
    pub(crate) fn read_from(&mut self, outlet: &mut dyn Outlet) -> bool {
        if !self.is_empty() {
            return true;
        }
        match outlet.read(&mut self.buffer) {
            Ok(Some(count)) => {
                (self.start, self.end) = (0, count);
                true
            }
            Err(Errno::EAGAIN | Errno::EINTR) => true,
            Ok(None) | Err(_) => false,
        }
    }

    /// Passes on as much as `pipe` has room for.
    pub(crate) fn write_to(&mut self, pipe: BorrowedFd<'_>) {
        let typed = self.buffer.get(self.start..self.end).unwrap_or_default();
        // What does not fit is tried again when it does.
        if !typed.is_empty()
            && let Ok(count) = write(pipe, typed)
        {
            self.start = self.start.saturating_add(count);
        }
    }
}
