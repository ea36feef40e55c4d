//! The size of a terminal's window.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::pty::Winsize;

nix::ioctl_read_bad!(
    /// Asks a terminal for the size of its window.
    window_size,
    libc::TIOCGWINSZ,
    Winsize
);

nix::ioctl_write_ptr_bad!(
    /// Tells a terminal the size of its window.
    set_window_size,
    libc::TIOCSWINSZ,
    Winsize
);

/// Columns and rows; both are zero where they are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Characters in a row.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

impl Size {
    /// The size of the terminal behind `fd`; `None` when there is no terminal.
    pub fn of(fd: BorrowedFd<'_>) -> Option<Self> {
        let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: `fd` is open, and the kernel writes at most a `Winsize` to where one stands.
        unsafe { window_size(fd.as_raw_fd(), &raw mut size) }.ok()?;
        Some(Self { columns: size.ws_col, rows: size.ws_row })
    }

    /// Makes it the size of the terminal behind `fd`.
    ///
    /// # Errors
    /// When there is no terminal.
    pub fn set(self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        let size = Winsize { ws_row: self.rows, ws_col: self.columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: `fd` is open, and the kernel reads a `Winsize` from where one stands.
        unsafe { set_window_size(fd.as_raw_fd(), &raw const size) }.map(drop)
    }
}
