//! Guest memory that the device reads: copies, and vectored writes of it straight to a file.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, iovec};
use vm_memory::ByteValued;

use crate::buffers::{Reader, file_offset, plainly};
use crate::vectored::{Batch, vectored};

impl Reader<'_> {
    /// Reads a value, or `None` (and consumes nothing) when fewer bytes are left than it has.
    pub fn read_obj<T: ByteValued + Default>(&mut self) -> Option<T> {
        let mut value = T::default();
        let bytes = value.as_mut_slice();
        if bytes.len() > self.len() {
            return None;
        }
        self.copy_to(bytes);
        Some(value)
    }

    /// Copies as many bytes as both sides have, and consumes them.
    pub fn copy_to(&mut self, mut bytes: &mut [u8]) -> usize {
        let mut copied = 0usize;
        for piece in self.0.iter() {
            if bytes.is_empty() {
                break;
            }
            let Some((here, rest)) = bytes.split_at_mut_checked(piece.iov_len.min(bytes.len()))
            else {
                break;
            };
            // SAFETY: the piece is mapped guest memory of at least `here.len()` bytes (invariant
            // of `Pieces`), `here` is ours alone, so they don't overlap. The guest may write
            // meanwhile; what is copied is then any mix of bytes, which is all we assume of it.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    piece.iov_base.cast::<u8>().cast_const(),
                    here.as_mut_ptr(),
                    here.len(),
                );
            }
            copied = copied.saturating_add(here.len());
            bytes = rest;
        }
        self.0.advance(copied);
        copied
    }

    /// Writes everything that is left to `fd`, from `offset` on.
    ///
    /// # Errors
    /// That of the system; the bytes before it are consumed.
    pub fn write_all_at(&mut self, fd: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
        self.write_all_with(fd, offset, 0)
    }

    /// As [`write_all_at`](Self::write_all_at), and what was written is on stable storage then.
    ///
    /// # Errors
    /// As for that.
    pub fn write_durably_at(&mut self, fd: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
        self.write_all_with(fd, offset, libc::RWF_DSYNC)
    }

    fn write_all_with(
        &mut self,
        fd: BorrowedFd<'_>,
        mut offset: u64,
        flags: c_int,
    ) -> io::Result<()> {
        while !self.is_empty() {
            let at = file_offset(offset)?;
            let moved = self.0.transfer(|pieces, count| {
                // SAFETY: the first `count` entries at `pieces` are initialised and each is mapped
                // guest memory (invariant of `Pieces`), which the kernel only reads.
                unsafe { libc::pwritev2(fd.as_raw_fd(), pieces, count, at, flags) }
            })?;
            if moved == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset = offset.saturating_add(moved as u64);
        }
        Ok(())
    }

    /// Writes to `fd` with one call, for what has no offset: a TAP, a terminal, a socket.
    /// Returns the number of bytes written, which are consumed.
    ///
    /// # Errors
    /// That of the system, `WouldBlock` included.
    pub fn write_to(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        self.0.transfer(|pieces, count| {
            // SAFETY: as in `write_all_at`.
            unsafe { vectored(libc::SYS_writev, fd, pieces, count) }
        })
    }

    /// Writes `head` and then everything that is left to `fd` with one call, as one packet.
    ///
    /// # Errors
    /// That of the system, `WouldBlock` included; nothing is consumed then.
    pub fn write_packet(&mut self, fd: BorrowedFd<'_>, head: &[u8]) -> io::Result<usize> {
        let mut batch = Batch::new();
        let own = iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() };
        batch.extend(std::iter::once(own));
        if batch.extend(self.0.iter()) < self.len() {
            return self.copy_packet(fd, head);
        }
        let moved = batch.transfer(|pieces, count| {
            // SAFETY: the first `count` entries at `pieces` are initialised; the first is `head`,
            // borrowed, the others are mapped guest memory (invariant of `Pieces`). The kernel
            // only reads them.
            unsafe { vectored(libc::SYS_writev, fd, pieces, count) }
        })?;
        self.skip(self.len());
        Ok(moved)
    }

    /// As [`write_packet`](Self::write_packet), for a packet in more pieces than one call takes.
    fn copy_packet(&mut self, fd: BorrowedFd<'_>, head: &[u8]) -> io::Result<usize> {
        let mut packet = head.to_vec();
        let start = packet.len();
        packet.resize(start.saturating_add(self.len()), 0);
        self.clone().copy_to(packet.get_mut(start..).unwrap_or_default());
        let moved = nix::unistd::write(fd, &packet)?;
        self.skip(self.len());
        Ok(moved)
    }
}

impl io::Read for Reader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(self.copy_to(bytes))
    }
}

/// Writes one packet to `fd` with one call. A small one that was copied takes the kernel less time than
/// to gather its pieces ([`Reader::write_packet`]).
///
/// # Errors
/// That of the system, `WouldBlock` included.
pub fn write_packet(fd: BorrowedFd<'_>, packet: &[u8]) -> io::Result<usize> {
    // SAFETY: `packet` is borrowed, and the kernel only reads it.
    plainly(|| unsafe {
        libc::syscall(libc::SYS_write, fd.as_raw_fd(), packet.as_ptr(), packet.len())
    })
}
