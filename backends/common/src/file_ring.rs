//! Transfers between one file and guest memory, many at once, by io_uring. Guest memory stays
//! mapped for as long as the kernel may use it. What a transfer is for is not known here.
//!
//! A ring is made before its process is confined, for it could be asked for anything that system
//! calls do, whatever a filter of those says: so each takes reads, writes and syncs and nothing
//! else, ever.
//!
//! Its file is not registered with it: that would be one look-up less for each transfer, but the
//! kernel takes its time to do away with the ring of a process that died, and would hold on to the
//! file, and to a lock on it, for so long. So it holds on to it while a transfer is in flight, and no
//! longer; which is how a successor knows that it has come to an end.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use io_uring::register::Restriction;
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};
use libc::iovec;
use nix::errno::Errno;

use crate::chain::Chain;

/// How many transfers there is room for on their way to the kernel.
const SUBMISSIONS: u32 = 128;

/// How many go to it with one call. The kernel tells a disk of them at the end of the call, so that
/// it would have nothing to do meanwhile if they were many, and answer all of them together.
const AT_ONCE: usize = 4;

/// How many completions there is room for. The kernel keeps what is beyond.
const COMPLETIONS: u32 = 512;

/// The most pieces of memory that one transfer of the kernel's takes (its `UIO_MAXIOV`).
const PIECES: usize = 1024;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Reads into a chain's room.
    Read {
        /// Where in the file.
        offset: u64,
    },
    /// Writes what a chain has to read.
    Write {
        /// Where in the file.
        offset: u64,
        /// Whether it is on stable storage when it is done.
        durable: bool,
    },
    /// Returns when all that was written before is on stable storage.
    Sync,
}

/// A transfer that is done.
#[derive(Debug)]
pub struct Transferred {
    /// The chain that came with it.
    pub chain: Chain,
    /// What was asked for.
    pub transfer: Transfer,
    /// All of it was done, or why not.
    pub result: io::Result<()>,
}

/// A transfer that the kernel has, or gets next.
struct Busy {
    chain: Chain,
    transfer: Transfer,
    /// Memory of the chain's that is still to be filled or written. The kernel may read this list
    /// until the transfer is done.
    pieces: Vec<iovec>,
    left: usize,
    /// How much of it is done.
    done: u64,
}

// SAFETY: only the raw pointers in `pieces` are not `Send`. They point into the memory that `chain`
// keeps mapped, which any thread may use, and move along with it.
unsafe impl Send for Busy {}

/// An io_uring for one file.
pub struct FileRing {
    ring: IoUring,
    file: File,
    busy: Vec<Option<Busy>>,
    free: Vec<usize>,
    /// Those that the kernel is to get next.
    waiting: VecDeque<usize>,
    in_flight: usize,
}

impl FileRing {
    /// A ring for `file`.
    ///
    /// # Errors
    /// The kernel's, when it has no io_uring or does not permit it.
    pub fn open(file: &File) -> io::Result<Self> {
        let ring = build()?;
        let mut restrictions = [
            Restriction::sqe_op(opcode::Read::CODE),
            Restriction::sqe_op(opcode::Readv::CODE),
            Restriction::sqe_op(opcode::Write::CODE),
            Restriction::sqe_op(opcode::Writev::CODE),
            Restriction::sqe_op(opcode::Fsync::CODE),
        ];
        let file = file.try_clone()?;
        ring.submitter().register_restrictions(&mut restrictions)?;
        ring.submitter().register_enable_rings()?;
        Ok(Self {
            ring,
            file,
            busy: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            in_flight: 0,
        })
    }

    /// Adds a transfer of `len` bytes of the chain's room, or of what it has to read, from the
    /// byte `from` on. The kernel gets it with the next [`submit`](Self::submit).
    pub fn add(&mut self, transfer: Transfer, chain: Chain, from: usize, len: usize) {
        let mut pieces = Vec::new();
        // A chain that is broken has no buffers, and its transfer no bytes.
        match (transfer, chain.buffers()) {
            (Transfer::Read { .. }, Ok((_, mut room))) => {
                room.skip(from);
                let _behind = room.split_off(len);
                pieces.extend(room.pieces());
            }
            (Transfer::Write { .. }, Ok((mut data, _))) => {
                data.skip(from);
                let _behind = data.split_off(len);
                pieces.extend(data.pieces());
            }
            _ => {}
        }
        let left = pieces.iter().fold(0usize, |sum, piece| sum.saturating_add(piece.iov_len));
        let busy = Busy { chain, transfer, pieces, left, done: 0 };
        let index = self.free.pop().unwrap_or(self.busy.len());
        match self.busy.get_mut(index) {
            Some(slot) => *slot = Some(busy),
            None => self.busy.push(Some(busy)),
        }
        self.waiting.push_back(index);
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// How many transfers are not done.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether the kernel did not take all that was added; the next [`submit`](Self::submit) tries
    /// again.
    pub fn is_stalled(&mut self) -> bool {
        !self.waiting.is_empty() || !self.ring.submission().is_empty()
    }

    /// Hands over what was added, as far as the kernel takes it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn submit(&mut self) -> io::Result<()> {
        loop {
            self.fill();
            if self.ring.submission().is_empty() {
                return Ok(());
            }
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EINTR) => {}
                    // It is short of memory, or of room for completions.
                    Some(Errno::EAGAIN | Errno::EBUSY) => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Takes what is done.
    pub fn reap(&mut self, done: &mut Vec<Transferred>) {
        let Self { ring, busy, free, waiting, in_flight, .. } = self;
        for completion in ring.completion() {
            let index = completion.user_data() as usize;
            let Some(slot) = busy.get_mut(index) else { continue };
            let Some(result) = slot.as_mut().and_then(|busy| busy.advance(completion.result()))
            else {
                waiting.push_back(index);
                continue;
            };
            if let Some(Busy { chain, transfer, .. }) = slot.take() {
                *in_flight = in_flight.saturating_sub(1);
                free.push(index);
                done.push(Transferred { chain, transfer, result });
            }
        }
    }

    /// Waits until something may be done. To be called while something is in flight.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&mut self) -> io::Result<()> {
        self.submit()?;
        match self.ring.submit_and_wait(1) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EINTR | Errno::EAGAIN | Errno::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Waits until nothing is in flight, and forgets what is done.
    ///
    /// # Errors
    /// The kernel's; there may be something in flight then.
    pub fn finish(&mut self) -> io::Result<()> {
        let mut done = Vec::new();
        while self.in_flight > 0 {
            self.wait()?;
            self.reap(&mut done);
            done.clear();
        }
        Ok(())
    }

    /// Puts what waits where the kernel finds it, a few at a time.
    fn fill(&mut self) {
        let file = Fd(self.file.as_raw_fd());
        let mut submission = self.ring.submission();
        while submission.len() < AT_ONCE {
            let Some(index) = self.waiting.pop_front() else { return };
            let Some(busy) = self.busy.get(index).and_then(Option::as_ref) else { continue };
            let entry = busy.entry(file).user_data(index as u64);
            // SAFETY: what the entry points to, guest memory that its chain keeps mapped and the
            // list of its pieces, stays until the transfer is done: `busy` keeps both until it is
            // reaped, and `drop` waits for that. The file is open for as long as this ring.
            if unsafe { submission.push(&entry) }.is_err() {
                self.waiting.push_front(index);
                return;
            }
        }
    }
}

impl AsFd for FileRing {
    /// Readable when something is done.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the ring's own, open for as long as that is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Drop for FileRing {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::error!("cannot wait for transfers: {error}");
            // The kernel may still use what they point to.
            std::mem::forget(std::mem::take(&mut self.busy));
        }
    }
}

impl std::fmt::Debug for FileRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileRing").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

/// A ring that does nothing yet. Its work is finished when its thread is in the kernel anyway,
/// where the kernel knows how (5.19).
fn build() -> io::Result<IoUring> {
    let build = |cooperate: bool| {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_r_disabled().setup_cqsize(COMPLETIONS);
        if cooperate {
            builder.setup_coop_taskrun();
        }
        builder.build(SUBMISSIONS)
    };
    match build(true) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => build(false),
        built => built,
    }
}

impl Busy {
    fn entry(&self, file: Fd) -> squeue::Entry {
        // At most PIECES.
        let count = self.pieces.len().min(PIECES) as u32;
        let list = self.pieces.as_ptr();
        match (self.transfer, self.pieces.as_slice()) {
            (Transfer::Read { offset }, [piece]) => {
                opcode::Read::new(file, piece.iov_base.cast(), len(piece))
                    .offset(offset.saturating_add(self.done))
                    .build()
            }
            (Transfer::Read { offset }, _) => opcode::Readv::new(file, list, count)
                .offset(offset.saturating_add(self.done))
                .build(),
            (Transfer::Write { offset, durable }, [piece]) => {
                opcode::Write::new(file, piece.iov_base.cast(), len(piece))
                    .offset(offset.saturating_add(self.done))
                    .rw_flags(rw_flags(durable))
                    .build()
            }
            (Transfer::Write { offset, durable }, _) => opcode::Writev::new(file, list, count)
                .offset(offset.saturating_add(self.done))
                .rw_flags(rw_flags(durable))
                .build(),
            (Transfer::Sync, _) => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
        }
    }

    /// Takes the kernel's answer. `None` when there is more to do.
    fn advance(&mut self, answer: i32) -> Option<io::Result<()>> {
        let moved = match usize::try_from(answer) {
            Ok(moved) => moved,
            // Whatever is not a count is the negative of an error.
            Err(_negative) => match Errno::from_raw(answer.saturating_neg()) {
                Errno::EINTR | Errno::EAGAIN => return None,
                errno => return Some(Err(errno.into())),
            },
        };
        if self.transfer == Transfer::Sync || moved >= self.left {
            return Some(Ok(()));
        }
        if moved == 0 {
            let kind = match self.transfer {
                Transfer::Read { .. } => io::ErrorKind::UnexpectedEof,
                _ => io::ErrorKind::WriteZero,
            };
            return Some(Err(kind.into()));
        }
        self.left = self.left.saturating_sub(moved);
        self.done = self.done.saturating_add(moved as u64);
        self.consume(moved);
        None
    }

    fn consume(&mut self, mut count: usize) {
        self.pieces.retain_mut(|piece| {
            let here = count.min(piece.iov_len);
            count = count.saturating_sub(here);
            piece.iov_base = piece.iov_base.wrapping_byte_add(here);
            piece.iov_len = piece.iov_len.saturating_sub(here);
            piece.iov_len > 0
        });
    }
}

/// A descriptor's length has 32 bits.
fn len(piece: &iovec) -> u32 {
    u32::try_from(piece.iov_len).unwrap_or(u32::MAX)
}

fn rw_flags(durable: bool) -> i32 {
    if durable { libc::RWF_DSYNC } else { 0 }
}

#[cfg(test)]
#[path = "file_ring_test.rs"]
mod tests;
