//! The size of the terminal's window, as the driver reads it.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) use atoll_terminal::Size;

/// What is said of a terminal that does not know its own size.
const DEFAULT: Size = Size { columns: 80, rows: 24 };

/// The size of the terminal behind `fd`, or what is said in its place; `None` when there is no terminal.
pub(crate) fn size_of(fd: BorrowedFd<'_>) -> Option<Size> {
    let size = Size::of(fd)?;
    Some(if size.columns > 0 && size.rows > 0 { size } else { DEFAULT })
}

/// The size as it is now: written by the line's thread, read by the session's.
#[derive(Debug, Default)]
pub(crate) struct Window(AtomicU32);

impl Window {
    pub(crate) fn get(&self) -> Size {
        let both = self.0.load(Ordering::Relaxed);
        // Two halves of 16 bits each.
        Size { columns: both as u16, rows: (both >> 16) as u16 }
    }

    /// Returns whether that is a change.
    pub(crate) fn set(&self, size: Size) -> bool {
        let both = u32::from(size.rows) << 16 | u32::from(size.columns);
        self.0.swap(both, Ordering::Relaxed) != both
    }
}
