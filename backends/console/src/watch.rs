//! Descriptors that one thread waits for while another changes which they are. What they are is not
//! known here.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use libc::{c_int, epoll_event};
use nix::poll::{PollFd, PollFlags};

use crate::outlet::ReaderId;

/// A set of descriptors, itself a descriptor that is readable while something happens to one of them.
pub(crate) struct Watch {
    epoll: Arc<File>,
    /// Besides a hang-up, which always counts.
    events: PollFlags,
    /// Who they belong to: a number that was closed may be another's by now.
    watched: Mutex<Vec<(ReaderId, RawFd)>>,
}

impl Watch {
    /// Of nothing yet.
    pub(crate) fn new(events: PollFlags) -> nix::Result<Self> {
        // SAFETY: it takes no pointer.
        let made = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        let raw = nix::errno::Errno::result(made)?;
        // SAFETY: the kernel has just made it for us, and nobody else knows of it.
        let epoll = unsafe { OwnedFd::from_raw_fd(raw) };
        let epoll = Arc::new(epoll.into());
        Ok(Self { epoll, events, watched: Mutex::default() })
    }

    /// It is these from now on. What has no way to say that something happens, as a file, is always ready
    /// and never waited for.
    pub(crate) fn follow<'fd>(
        &self,
        wanted: impl IntoIterator<Item = (ReaderId, BorrowedFd<'fd>)>,
    ) {
        let wanted = wanted.into_iter().map(|(id, fd)| (id, fd.as_raw_fd())).collect();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *watched, wanted);
        // Out before in, as one's number may be the next one's. What was closed is out already.
        for gone in before.iter().filter(|old| !watched.contains(old)) {
            let _out = self.control(libc::EPOLL_CTL_DEL, gone.1);
        }
        for come in watched.iter().filter(|new| !before.contains(new)) {
            let _in = self.control(libc::EPOLL_CTL_ADD, come.1);
        }
    }

    fn control(&self, what: c_int, fd: RawFd) -> io::Result<()> {
        // The two interfaces share the values of their flags.
        let mut event = epoll_event { events: self.events.bits() as u32, u64: 0 };
        // SAFETY: the kernel reads the event, which is borrowed for the call, and refuses a number
        // that is no descriptor's.
        let done = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), what, fd, &raw mut event) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// What to wait for with `poll`, if it is to be waited for.
    pub(crate) fn poll_if(&self, wanted: bool) -> PollFd<'_> {
        let events = if wanted { PollFlags::POLLIN } else { PollFlags::empty() };
        PollFd::new(self.epoll.as_fd(), events)
    }
}

impl Watch {
    /// The set itself.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.epoll
    }
}
