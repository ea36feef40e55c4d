//! Vectored system calls: the pieces of memory of one call, and the call. Whose memory it is is not
//! known here.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::io;

use libc::{c_int, iovec};

/// How many pieces of memory one system call takes at most. What is longer takes several.
pub(crate) const BATCH: usize = 128;

/// The pieces of memory of one vectored call.
pub(crate) struct Batch {
    pieces: [iovec; BATCH],
    filled: usize,
}

impl Batch {
    pub(crate) const fn new() -> Self {
        let nothing = iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self { pieces: [nothing; BATCH], filled: 0 }
    }

    /// Adds pieces as far as they fit. Returns how many bytes those are.
    pub(crate) fn extend(&mut self, pieces: impl Iterator<Item = iovec>) -> usize {
        let free = self.pieces.get_mut(self.filled..).unwrap_or_default();
        let mut bytes = 0usize;
        for (slot, piece) in free.iter_mut().zip(pieces) {
            *slot = piece;
            bytes = bytes.saturating_add(piece.iov_len);
            self.filled = self.filled.saturating_add(1);
        }
        bytes
    }

    pub(crate) fn transfer(
        &self,
        call: impl Fn(*const iovec, c_int) -> isize,
    ) -> io::Result<usize> {
        transfer(self.pieces.get(..self.filled).unwrap_or_default(), call)
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
