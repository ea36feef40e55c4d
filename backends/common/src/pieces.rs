//! Pieces of guest memory, of which a part is left to be moved. Which way is not known here.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::io;
use std::marker::PhantomData;

use libc::{c_int, iovec};

use crate::vectored::{BATCH, Batch, transfer};

/// Pieces of guest memory, of which some bytes at the front are consumed and some at the end cut.
///
/// Invariant: every piece is mapped, of the chain's memory, for as long as `'chain`; `left` is at
/// most the bytes of `pieces` behind the first `skip`; `skip` is within the first piece.
#[derive(Clone, Copy)]
pub(crate) struct Pieces<'chain> {
    pieces: &'chain [iovec],
    skip: usize,
    pub(crate) left: usize,
    _memory: PhantomData<&'chain iovec>,
}

impl<'chain> Pieces<'chain> {
    /// All of `pieces`, in which there are `left` bytes.
    pub(crate) fn new(pieces: &'chain [iovec], left: usize) -> Self {
        Self { pieces, skip: 0, left, _memory: PhantomData }
    }

    /// The pieces that are left, as they stand.
    pub(crate) fn iter(&self) -> impl Iterator<Item = iovec> + use<'chain> {
        let (mut skip, mut left) = (self.skip, self.left);
        self.pieces.iter().map_while(move |piece| {
            let len = piece.iov_len.saturating_sub(skip).min(left);
            let iov_base = piece.iov_base.wrapping_byte_add(skip);
            skip = 0;
            left = left.saturating_sub(len);
            (len > 0).then_some(iovec { iov_base, iov_len: len })
        })
    }

    pub(crate) fn advance(&mut self, count: usize) {
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
    pub(crate) fn split_off(&mut self, count: usize) -> Self {
        let count = count.min(self.left);
        let mut behind = *self;
        behind.advance(count);
        self.left = count;
        behind
    }

    /// Whether each piece begins and ends at a multiple of `alignment`, a power of two.
    pub(crate) fn is_aligned(&self, alignment: usize) -> bool {
        let mask = alignment.saturating_sub(1);
        self.iter().all(|piece| (piece.iov_base.addr() | piece.iov_len) & mask == 0)
    }

    /// One vectored call over at most [`BATCH`] pieces, which advances them.
    pub(crate) fn transfer(
        &mut self,
        call: impl Fn(*const iovec, c_int) -> isize,
    ) -> io::Result<usize> {
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
