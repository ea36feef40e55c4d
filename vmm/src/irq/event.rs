//! An eventfd as kicks, calls and wake-ups use it: a counter that never blocks who owns it.
//!
//! O_NONBLOCK is no protection: it belongs to the open file, which a device process shares and whose
//! flags it may change.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// A non-blocking eventfd.
#[derive(Debug)]
pub struct Event(EventFd);

impl Event {
    /// A new event, not signalled.
    ///
    /// # Errors
    /// What the kernel says, usually that no descriptor is left.
    pub fn new() -> io::Result<Self> {
        EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map(Self)
    }

    /// Signals. A full counter is signalled already.
    pub fn signal(&self) {
        if self.is_ready(PollFlags::POLLOUT) {
            // The only error of a valid eventfd is EAGAIN: the counter is at its maximum.
            drop(self.0.write(1));
        }
    }

    /// Takes what was signalled, and says whether there was anything.
    pub fn drain(&self) -> bool {
        let mut counter = 0_u64;
        let part = libc::iovec { iov_base: (&raw mut counter).cast(), iov_len: size_of::<u64>() };
        // SAFETY: the descriptor is open as long as `self`; `part` is the one vector that is told of
        // and describes `counter`, which outlives the call and which nobody else reaches.
        let read = unsafe { libc::preadv2(self.0.as_raw_fd(), &part, 1, -1, libc::RWF_NOWAIT) };
        read > 0
    }

    /// Whether the event is signalled; leaves it as it is.
    pub fn is_signalled(&self) -> bool {
        self.is_ready(PollFlags::POLLIN)
    }

    fn is_ready(&self, flags: PollFlags) -> bool {
        let mut fds = [PollFd::new(self.as_fd(), flags)];
        // A counter that the kernel has driven over its maximum is an error that poll always tells.
        poll(&mut fds, PollTimeout::ZERO).is_ok()
            && fds.iter().filter_map(PollFd::revents).any(|ready| ready.contains(flags))
    }

    /// The eventfd in the type that the kernel interfaces take.
    pub fn eventfd(&self) -> &EventFd {
        &self.0
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `self`, from which the lifetime is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

#[cfg(test)]
#[path = "event_test.rs"]
mod tests;
