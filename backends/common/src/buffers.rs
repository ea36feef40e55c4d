//! What a chain gives the device: guest memory to read and guest memory to write, as far as both are
//! the same. They never look at descriptors.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::io;
use std::marker::PhantomData;

use libc::{iovec, off_t};

use crate::pieces::Pieces;

/// Guest memory that a chain describes, of which some bytes at the front are consumed.
pub struct Buffers<'chain, Direction>(pub(crate) Pieces<'chain>, PhantomData<Direction>);

/// For the device to read.
pub struct Readable;

/// For the device to write.
pub struct Writable;

/// The bytes that the driver gave the device to read.
pub type Reader<'chain> = Buffers<'chain, Readable>;

/// The room that the driver gave the device to write to.
pub type Writer<'chain> = Buffers<'chain, Writable>;

impl<'chain, Direction> Buffers<'chain, Direction> {
    /// All of `pieces`, which are `len` bytes.
    pub(crate) fn new(pieces: &'chain [iovec], len: usize) -> Self {
        Self::of(Pieces::new(pieces, len))
    }

    pub(crate) fn of(pieces: Pieces<'chain>) -> Self {
        Self(pieces, PhantomData)
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
        Self::of(self.0.split_off(count))
    }

    /// Consumes `count` bytes without looking at them or changing them.
    pub fn skip(&mut self, count: usize) {
        self.0.advance(count);
    }

    /// Whether each piece of memory begins and ends at a multiple of `alignment`, a power of two.
    pub fn is_aligned(&self, alignment: usize) -> bool {
        self.0.is_aligned(alignment)
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = iovec> + use<'chain, Direction> {
        self.0.iter()
    }
}

// By hand: a derived one would ask as much of the direction.
impl<Direction> Clone for Buffers<'_, Direction> {
    fn clone(&self) -> Self {
        Self::of(self.0)
    }
}

/// One system call that moves bytes, again when a signal comes between. Not by the C library's wrapper: it
/// makes of each call a point at which a thread may be cancelled, which takes a while and is of no use
/// to us; and each wrapper is on another page, which a thread that was asleep has to look up first.
pub(crate) fn plainly(mut call: impl FnMut() -> libc::c_long) -> io::Result<usize> {
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

pub(crate) fn file_offset(offset: u64) -> io::Result<off_t> {
    off_t::try_from(offset).map_err(io::Error::other)
}
