//! Guest memory that the device writes: copies, and vectored reads straight from a file to it.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::iovec;
use vm_memory::ByteValued;

use crate::buffers::{Reader, Writer, file_offset, plainly};
use crate::vectored::{BATCH, Batch, vectored};

impl Writer<'_> {
    /// Writes a value; `false` (and nothing is written) when there is less room than it needs.
    #[must_use]
    pub fn write_obj<T: ByteValued>(&mut self, value: &T) -> bool {
        let bytes = value.as_slice();
        bytes.len() <= self.len() && self.copy_from(bytes) == bytes.len()
    }

    /// Copies as many bytes as both sides have, and consumes the room.
    pub fn copy_from(&mut self, mut bytes: &[u8]) -> usize {
        let mut copied = 0usize;
        for piece in self.0.iter() {
            if bytes.is_empty() {
                break;
            }
            let Some((here, rest)) = bytes.split_at_checked(piece.iov_len.min(bytes.len())) else {
                break;
            };
            // SAFETY: as in `Reader::copy_to`, the other way; guest memory holds plain bytes and
            // no reference to it exists in this process.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    here.as_ptr(),
                    piece.iov_base.cast::<u8>(),
                    here.len(),
                );
            }
            copied = copied.saturating_add(here.len());
            bytes = rest;
        }
        self.0.advance(copied);
        copied
    }

    /// Copies back what is in the room, such as a packet that was read there, and consumes it. The
    /// guest may have changed it meanwhile.
    pub fn copy_back(&mut self, bytes: &mut [u8]) -> usize {
        let mut written = Reader::of(self.0);
        let copied = written.copy_to(bytes);
        self.0 = written.0;
        copied
    }

    /// Fills all room that is left from `fd`, from `offset` on.
    ///
    /// # Errors
    /// That of the system, or `UnexpectedEof`; the room before it is consumed.
    pub fn read_exact_at(&mut self, fd: BorrowedFd<'_>, mut offset: u64) -> io::Result<()> {
        while !self.is_empty() {
            let at = file_offset(offset)?;
            let moved = self.0.transfer(|pieces, count| {
                // SAFETY: the first `count` entries at `pieces` are initialised and each is mapped
                // guest memory (invariant of `Pieces`): plain bytes, which the kernel may write.
                unsafe { libc::preadv(fd.as_raw_fd(), pieces, count, at) }
            })?;
            if moved == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            offset = offset.saturating_add(moved as u64);
        }
        Ok(())
    }

    /// Fills the room that is left from `fd`, from `offset` on, as far as that takes no waiting: what
    /// is in the page cache. Whether it was filled; the room that was is consumed.
    ///
    /// # Errors
    /// That of the system, or `UnexpectedEof`; `Unsupported` where the file system can't tell.
    pub fn read_cached_at(&mut self, fd: BorrowedFd<'_>, mut offset: u64) -> io::Result<bool> {
        while !self.is_empty() {
            let at = file_offset(offset)?;
            let moved = self.0.transfer(|pieces, count| {
                // Not by the C library's wrapper: it makes of each call a point at which a thread
                // may be cancelled, which takes a while and is of no use to us.
                // SAFETY: as in `read_exact_at`. An offset is one word where a word has 64 bits.
                let moved = unsafe {
                    libc::syscall(
                        libc::SYS_preadv2,
                        fd.as_raw_fd(),
                        pieces,
                        libc::c_long::from(count),
                        at,
                        0_i64,
                        libc::RWF_NOWAIT,
                    )
                };
                moved as isize
            });
            match moved {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(moved) => offset = offset.saturating_add(moved as u64),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads from `fd` with one call, for what has no offset: a TAP, a terminal, a socket.
    /// Returns the number of bytes read, whose room is consumed.
    ///
    /// # Errors
    /// That of the system, `WouldBlock` included.
    pub fn read_from(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        self.0.transfer(|pieces, count| {
            // SAFETY: as in `read_exact_at`.
            unsafe { vectored(libc::SYS_readv, fd, pieces, count) }
        })
    }
}

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.copy_from(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a packet was received by [`read_packet`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Bytes that went to the writers, which they fill from the first byte on.
    pub placed: usize,
    /// Bytes behind those, which went to the spill.
    pub spilled: usize,
}

/// Reads one packet from `fd` with one call: into `room`, one writer after the other, and what
/// does not fit there into `spill`.
///
/// # Errors
/// That of the system, `WouldBlock` included.
pub fn read_packet<'chain>(
    fd: BorrowedFd<'_>,
    room: impl Iterator<Item = Writer<'chain>>,
    spill: &mut [u8],
) -> io::Result<Received> {
    let mut room = room.flat_map(|writer| writer.0.iter()).peekable();
    if room.peek().is_none() {
        // SAFETY: `spill` is borrowed for writing.
        let spilled = plainly(|| unsafe {
            libc::syscall(libc::SYS_read, fd.as_raw_fd(), spill.as_mut_ptr(), spill.len())
        })?;
        return Ok(Received { placed: 0, spilled });
    }
    let mut batch = Batch::new();
    let own = iovec { iov_base: spill.as_mut_ptr().cast(), iov_len: spill.len() };
    // One piece of the batch is left for the spill.
    let offered = batch.extend(room.take(BATCH.saturating_sub(1)));
    batch.extend(std::iter::once(own));
    let moved = batch.transfer(|pieces, count| {
        // SAFETY: the first `count` entries at `pieces` are initialised; the last is `spill`,
        // borrowed for writing, the others are mapped guest memory (invariant of `Pieces`): plain
        // bytes, which the kernel may write.
        unsafe { vectored(libc::SYS_readv, fd, pieces, count) }
    })?;
    let placed = moved.min(offered);
    Ok(Received { placed, spilled: moved.saturating_sub(placed) })
}
