//! The size of the terminal's window, as the driver reads it.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::pty::Winsize;

nix::ioctl_read_bad!(
    /// Asks a terminal for the size of its window.
    window_size,
    libc::TIOCGWINSZ,
    Winsize
);

/// What is said of a terminal that does not know its own size.
const DEFAULT: Size = Size { columns: 80, rows: 24 };

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
}

impl Size {
    /// The size of the terminal behind `fd`; `None` when there is no terminal.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> Option<Self> {
        let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: `fd` is open, and the kernel writes at most a `Winsize` to where one stands.
        unsafe { window_size(fd.as_raw_fd(), &raw mut size) }.ok()?;
        let known = size.ws_col > 0 && size.ws_row > 0;
        Some(if known { Self { columns: size.ws_col, rows: size.ws_row } } else { DEFAULT })
    }
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
