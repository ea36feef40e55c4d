//! What wakes the thread of a ring: kicks, being stopped, and what its worker waits for. What is done
//! then is the thread's.
//!
//! A kick is an edge: each write to its descriptor wakes the thread once, and the counter is not read
//! back, which would cost a system call for each request (the kernel's vhost doesn't either). An edge
//! that comes while the thread is at work, or waits for something else, is kept for its next wait for
//! kicks, which then ends at once: none is lost, and none wakes it twice.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::device::Wait;
use crate::event;
use crate::vring::VringError;

/// What the two that are registered are told apart by.
const STOP: u64 = 0;
const KICK: u64 = 1;

/// What the thread of a ring sleeps on.
pub(crate) struct WakeUps<'fd> {
    /// Has the kick and `stop`, and nothing that could be closed or replaced before it. Descriptors
    /// of a worker's may be, so they are named anew for each wait.
    epoll: Epoll,
    kick: &'fd File,
    /// Whether each write to the kick is an edge.
    edges: bool,
    stop: BorrowedFd<'fd>,
}

impl<'fd> WakeUps<'fd> {
    /// Wakes by `kick`, once for all that it has counted so far, and for good by `stop`.
    ///
    /// # Errors
    /// [`VringError::KickLost`] when nobody can wait for `kick`, which may be a file of any kind.
    pub(crate) fn new(kick: &'fd File, stop: BorrowedFd<'fd>) -> Result<Self, VringError> {
        let edges = event::is_counter(kick).map_err(VringError::KickLost)?;
        let how =
            if edges { EpollFlags::EPOLLIN | EpollFlags::EPOLLET } else { EpollFlags::EPOLLIN };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        epoll.add(stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP)).map_err(failed)?;
        epoll.add(kick, EpollEvent::new(how, KICK)).map_err(|errno| match errno {
            // A regular file; a tower of epolls.
            Errno::EPERM | Errno::ELOOP => VringError::KickLost(errno.into()),
            errno => failed(errno),
        })?;
        Ok(Self { epoll, kick, edges, stop })
    }

    /// Sleeps until something happens that `wait` names, or the thread is to stop.
    ///
    /// # Errors
    /// [`VringError::KickLost`] when kicks are waited for and none can come any more.
    pub(crate) fn sleep(&self, wait: &Wait<'_>) -> Result<(), VringError> {
        let timeout = wait.timeout.map_or(PollTimeout::NONE, |timeout| {
            // Rounded up to its milliseconds, so as not to wake too early again and again.
            let timeout = timeout.saturating_add(Duration::from_nanos(999_999));
            PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)
        });
        let others = wait.fds.iter().flatten().count();
        if wait.kick && others == 0 {
            return self.take(timeout);
        }
        // Without a need for kicks their edges are not looked at.
        let ours = if wait.kick { self.epoll.0.as_fd() } else { self.stop };
        let [first, second] = wait.fds.map(|fd| fd.unwrap_or((ours, PollFlags::empty())));
        let mut fds = [
            PollFd::new(ours, PollFlags::POLLIN),
            PollFd::new(first.0, first.1),
            PollFd::new(second.0, second.1),
        ];
        match poll(&mut fds[..=others], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        // An edge that woke it must not do so again.
        let edge = wait.kick && fds[0].any() == Some(true);
        if edge { self.take(PollTimeout::ZERO) } else { Ok(()) }
    }

    /// Takes edges of the kick, as soon as there is one.
    fn take(&self, timeout: PollTimeout) -> Result<(), VringError> {
        let mut events = [EpollEvent::empty(); 2];
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(failed(errno)),
        };
        let mut events = events.iter().take(count);
        let Some(kicked) = events.find(|event| event.data() == KICK) else { return Ok(()) };
        let kicked = kicked.events();
        if !kicked.contains(EpollFlags::EPOLLIN) {
            return Err(VringError::KickLost(io::ErrorKind::BrokenPipe.into()));
        }
        // With more than that to say, a counter has reached its end, and starts again.
        let is_edge = self.edges && kicked == EpollFlags::EPOLLIN;
        if is_edge { Ok(()) } else { event::take(self.kick).map_err(VringError::KickLost) }
    }
}

fn failed(errno: Errno) -> VringError {
    VringError::Sleep(errno.into())
}

#[cfg(test)]
#[path = "wake_ups_test.rs"]
mod tests;
