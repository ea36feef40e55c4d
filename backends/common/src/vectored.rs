//! Vectored system calls: the pieces of memory of one call, and the call. Whose memory it is is not
//! known here.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use arrayvec::ArrayVec;
use libc::{c_int, c_long, iovec};

/// How many pieces of memory one system call takes at most. What is longer takes several.
pub(crate) const BATCH: usize = 128;

/// The pieces of memory of one vectored call. What is not filled of it is not touched.
pub(crate) struct Batch(ArrayVec<iovec, BATCH>);

impl Batch {
    pub(crate) fn new() -> Self {
        Self(ArrayVec::new())
    }

    /// Adds pieces as far as they fit. Returns how many bytes those are.
    pub(crate) fn extend(&mut self, pieces: impl Iterator<Item = iovec>) -> usize {
        let mut bytes = 0usize;
        for piece in pieces {
            if self.0.try_push(piece).is_err() {
                break;
            }
            bytes = bytes.saturating_add(piece.iov_len);
        }
        bytes
    }

    pub(crate) fn transfer(
        &self,
        call: impl Fn(*const iovec, c_int) -> isize,
    ) -> io::Result<usize> {
        transfer(&self.0, call)
    }
}

/// One vectored call over at most [`BATCH`] pieces.
pub(crate) fn transfer(
    pieces: &[iovec],
    call: impl Fn(*const iovec, c_int) -> isize,
) -> io::Result<usize> {
    if pieces.is_empty() {
        return Ok(0);
    }
    // At most BATCH.
    let count = pieces.len() as c_int;
    loop {
        // A negative result is the only one that does not convert.
        if let Ok(moved) = usize::try_from(call(pieces.as_ptr(), count)) {
            return Ok(moved);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// readv(2) or writev(2), whichever `number` is. Not by the C library's wrappers, for the reasons of
/// [`plainly`](crate::buffers::plainly).
///
/// # Safety
/// The first `count` entries at `pieces` are initialised, and memory that the kernel may write, or
/// only read.
pub(crate) unsafe fn vectored(
    number: c_long,
    fd: BorrowedFd<'_>,
    pieces: *const iovec,
    count: c_int,
) -> isize {
    // SAFETY: the caller's. The kernel takes the number of pieces as a word, and only that of a variable
    // argument is whole.
    let moved = unsafe { libc::syscall(number, fd.as_raw_fd(), pieces, c_long::from(count)) };
    moved as isize
}
