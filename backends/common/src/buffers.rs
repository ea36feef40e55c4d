//! Readers and writers over the guest memory that a chain describes: copies, and vectored I/O
//! straight between guest memory and a file. They never look at descriptors.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, iovec, off_t};
use vm_memory::ByteValued;

use crate::vectored::{BATCH, Batch, transfer};

/// Pieces of guest memory, of which some bytes at the front are consumed and some at the end cut.
///
/// Invariant: every piece is mapped, of the chain's memory, for as long as `'chain`; `left` is at
/// most the bytes of `pieces` behind the first `skip`; `skip` is within the first piece.
#[derive(Clone, Copy)]
struct Pieces<'chain> {
    pieces: &'chain [iovec],
    skip: usize,
    left: usize,
    _memory: PhantomData<&'chain iovec>,
}

impl<'chain> Pieces<'chain> {
    fn new(pieces: &'chain [iovec]) -> Self {
        // The chain walk bounds the sum to 32 bits.
        let left = pieces.iter().fold(0usize, |sum, piece| sum.saturating_add(piece.iov_len));
        Self { pieces, skip: 0, left, _memory: PhantomData }
    }

    /// The pieces that are left, as they stand.
    fn iter(&self) -> impl Iterator<Item = iovec> + use<'chain> {
        let (mut skip, mut left) = (self.skip, self.left);
        self.pieces.iter().map_while(move |piece| {
            let len = piece.iov_len.saturating_sub(skip).min(left);
            let iov_base = piece.iov_base.wrapping_byte_add(skip);
            skip = 0;
            left = left.saturating_sub(len);
            (len > 0).then_some(iovec { iov_base, iov_len: len })
        })
    }

    fn advance(&mut self, count: usize) {
        let mut count = count.min(self.left);
        self.left = self.left.saturating_sub(count);
        while let Some((first, rest)) = self.pieces.split_first() {
            let here = first.iov_len.saturating_sub(self.skip);
            if count < here {
                self.skip = self.skip.saturating_add(count);
                return;
            }
            count = count.saturating_sub(here);
            self.pieces = rest;
            self.skip = 0;
        }
    }

    /// Cuts at `count` bytes (or at the end, if that comes first): keeps what is before, returns
    /// what is behind.
    fn split_off(&mut self, count: usize) -> Self {
        let count = count.min(self.left);
        let mut behind = *self;
        behind.advance(count);
        self.left = count;
        behind
    }

    /// Whether each piece begins and ends at a multiple of `alignment`, a power of two.
    fn is_aligned(&self, alignment: usize) -> bool {
        let mask = alignment.saturating_sub(1);
        self.iter().all(|piece| (piece.iov_base.addr() | piece.iov_len) & mask == 0)
    }

    /// One vectored call over at most [`BATCH`] pieces, which advances them.
    fn transfer(&mut self, call: impl Fn(*const iovec, c_int) -> isize) -> io::Result<usize> {
        let moved = match self.whole() {
            Some(pieces) => transfer(pieces, call)?,
            None => {
                let mut batch = Batch::new();
                batch.extend(self.iter());
                batch.transfer(call)?
            }
        };
        self.advance(moved);
        Ok(moved)
    }

    /// The pieces as they are, if all that is left of them is whole ones that one call takes: as it
    /// is in what every driver makes.
    fn whole(&self) -> Option<&'chain [iovec]> {
        let mut sum = 0usize;
        let ends = |piece: &iovec| {
            sum = sum.saturating_add(piece.iov_len);
            sum >= self.left
        };
        let last = self.pieces.iter().take(BATCH).position(ends)?;
        let whole = self.skip == 0 && sum == self.left;
        self.pieces.get(..=last).filter(|_| whole)
    }
}

/// The bytes that the driver gave the device to read.
#[derive(Clone)]
pub struct Reader<'chain>(Pieces<'chain>);

impl<'chain> Reader<'chain> {
    pub(crate) fn new(pieces: &'chain [iovec]) -> Self {
        Self(Pieces::new(pieces))
    }

    /// How many bytes are left.
    pub fn len(&self) -> usize {
        self.0.left
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.left == 0
    }

    /// Cuts at `count` bytes: keeps what is before, returns what is behind.
    #[must_use]
    pub fn split_off(&mut self, count: usize) -> Self {
        Self(self.0.split_off(count))
    }

    /// Consumes `count` bytes unread.
    pub fn skip(&mut self, count: usize) {
        self.0.advance(count);
    }

    /// Whether each piece of memory begins and ends at a multiple of `alignment`, a power of two.
    pub fn is_aligned(&self, alignment: usize) -> bool {
        self.0.is_aligned(alignment)
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = iovec> + use<'chain> {
        self.0.iter()
    }

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
            unsafe { libc::writev(fd.as_raw_fd(), pieces, count) }
        })
    }
}

impl Reader<'_> {
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
            unsafe { libc::writev(fd.as_raw_fd(), pieces, count) }
        })?;
        self.skip(self.len());
        Ok(moved)
    }

    /// As [`write_packet`](Self::write_packet), by way of `copy`, into which the packet fits: for a
    /// small one that takes the kernel less time than to gather its pieces.
    ///
    /// # Errors
    /// That of the system, `WouldBlock` included; nothing is consumed then.
    pub fn write_copied(
        &mut self,
        fd: BorrowedFd<'_>,
        head: &[u8],
        copy: &mut [u8],
    ) -> io::Result<usize> {
        let len = head.len().saturating_add(self.len());
        let Some(packet) = copy.get_mut(..len) else { return self.write_packet(fd, head) };
        let Some((start, rest)) = packet.split_at_mut_checked(head.len()) else {
            return self.write_packet(fd, head);
        };
        start.copy_from_slice(head);
        self.clone().copy_to(rest);
        // SAFETY: `packet` is borrowed, and the kernel only reads it.
        let moved = plainly(|| unsafe {
            libc::syscall(libc::SYS_write, fd.as_raw_fd(), packet.as_ptr(), packet.len())
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

/// The room that the driver gave the device to write to.
#[derive(Clone)]
pub struct Writer<'chain>(Pieces<'chain>);

impl<'chain> Writer<'chain> {
    pub(crate) fn new(pieces: &'chain [iovec]) -> Self {
        Self(Pieces::new(pieces))
    }

    /// How many bytes of room are left.
    pub fn len(&self) -> usize {
        self.0.left
    }

    /// Whether no room is left.
    pub fn is_empty(&self) -> bool {
        self.0.left == 0
    }

    /// Cuts at `count` bytes: keeps what is before, returns what is behind.
    #[must_use]
    pub fn split_off(&mut self, count: usize) -> Self {
        Self(self.0.split_off(count))
    }

    /// Consumes `count` bytes of room without writing to them.
    pub fn skip(&mut self, count: usize) {
        self.0.advance(count);
    }

    /// Whether each piece of memory begins and ends at a multiple of `alignment`, a power of two.
    pub fn is_aligned(&self, alignment: usize) -> bool {
        self.0.is_aligned(alignment)
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = iovec> + use<'chain> {
        self.0.iter()
    }

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
        let mut written = Reader(self.0);
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
            unsafe { libc::readv(fd.as_raw_fd(), pieces, count) }
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
        unsafe { libc::readv(fd.as_raw_fd(), pieces, count) }
    })?;
    let placed = moved.min(offered);
    Ok(Received { placed, spilled: moved.saturating_sub(placed) })
}

/// One system call that moves bytes, again when a signal comes between. Not by the C library's wrapper: it
/// makes of each call a point at which a thread may be cancelled, which takes a while and is of no use
/// to us.
fn plainly(mut call: impl FnMut() -> libc::c_long) -> io::Result<usize> {
    loop {
        // A negative result is the only one that does not convert.
        if let Ok(moved) = usize::try_from(call()) {
            return Ok(moved);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn file_offset(offset: u64) -> io::Result<off_t> {
    off_t::try_from(offset).map_err(io::Error::other)
}
