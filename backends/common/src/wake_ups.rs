//! What the thread of rings sleeps on. What becomes of what happened is not known here.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use arrayvec::ArrayVec;
use libc::{SYS_epoll_pwait, c_int, sigset_t};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::buffers::plainly;

/// What orders are told apart by from what happens to rings.
const BELL: u64 = u64::MAX;

/// How many of the things that happened are asked for at once.
const AT_ONCE: usize = 8;

/// How many rings one thread serves at most.
pub(crate) const RINGS: usize = 2;

/// Descriptors to wait for during one sleep only, up to two of each ring; with room for our own.
pub(crate) type Named<'fd> = ArrayVec<PollFd<'fd>, { 2 * RINGS + 1 }>;

/// The bell, what rings have [watched](crate::ring_watch), and a sleep until any of it says something.
pub(crate) struct WakeUps {
    /// What may be closed or replaced before this is not in here, but named anew for each sleep.
    epoll: Epoll,
}

impl WakeUps {
    /// Wakes by `bell`, as long as that is readable.
    ///
    /// # Errors
    /// That of the system.
    pub(crate) fn new(bell: BorrowedFd<'_>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        Ok(Self { epoll })
    }

    /// Where rings have descriptors watched.
    pub(crate) fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    /// Sleeps until something happens that is watched or `named`, or `timeout` has passed, and tells
    /// `happened` of what is watched. Whether the bell rings. It may wake for nothing.
    ///
    /// # Errors
    /// That of the system.
    pub(crate) fn sleep(
        &self,
        named: Named<'_>,
        timeout: Option<Duration>,
        happened: impl FnMut(EpollEvent),
    ) -> io::Result<bool> {
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            // Rounded up to its milliseconds, so as not to wake too early again and again.
            let timeout = timeout.saturating_add(Duration::from_nanos(999_999));
            PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)
        });
        if named.is_empty() {
            return self.take(timeout, happened);
        }
        let ours = PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN);
        let mut fds: Named<'_> = named.into_iter().chain([ours]).collect();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        // Ours is the last. An edge that woke it must not do so again.
        let ours = fds.pop().and_then(|ours| ours.any());
        if ours == Some(true) { self.take(PollTimeout::ZERO, happened) } else { Ok(false) }
    }

    /// Takes what has happened, as soon as there is something.
    fn take(&self, timeout: PollTimeout, happened: impl FnMut(EpollEvent)) -> io::Result<bool> {
        let mut events = [EpollEvent::empty(); AT_ONCE];
        let (set, room) = (self.epoll.0.as_raw_fd(), AT_ONCE as c_int);
        let (timeout, mask) = (c_int::from(timeout), ptr::null::<sigset_t>());
        // SAFETY: the kernel fills as many of `events` as there is room for, each of which is one of its own
        // in a type of nix's (`repr(transparent)`); there is no mask to read.
        let count = plainly(|| unsafe {
            libc::syscall(SYS_epoll_pwait, set, events.as_mut_ptr(), room, timeout, mask, 0_usize)
        })?;
        let events = events.into_iter().take(count);
        let bell = events.clone().any(|event| event.data() == BELL);
        events.filter(|event| event.data() != BELL).for_each(happened);
        Ok(bell)
    }
}

#[cfg(test)]
#[path = "wake_ups_test.rs"]
mod tests;
