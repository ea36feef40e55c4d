//! What is watched for one ring: its kick, and what its worker waits for again and again.
//!
//! A kick is an edge: each write to its descriptor wakes the thread once, and the counter is not read
//! back, which would cost a system call for each request (the kernel's vhost doesn't either). An edge
//! that comes while the thread is at work is kept for its next sleep, which then ends at once: none is
//! lost, and none wakes it twice. What the ring does not wait for wakes the thread once at most: then it
//! is not watched until the ring waits for it, and the kernel says at once what it has of it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use crate::device::Wait;
use crate::event;
use crate::vring::VringError;

/// Why a ring is to be served.
#[derive(Debug)]
pub(crate) enum Woken {
    Kick,
    /// By its worker's descriptor.
    Ready,
}

/// What is watched for a ring.
pub(crate) struct RingWatch {
    /// The ring's index.
    ring: u16,
    kick: Watched,
    lasting: Option<Watched>,
}

/// A descriptor that the kernel is told of once.
struct Watched {
    file: Arc<File>,
    event: EpollEvent,
    /// Whether the ring waits for it.
    wanted: bool,
    /// Whether it is in the epoll set.
    told: bool,
}

impl RingWatch {
    /// Watches the kicks of `ring`: one edge for all that `kick` has counted so far.
    ///
    /// # Errors
    /// [`VringError::KickLost`] when nobody can wait for `kick`, which may be a file of any kind.
    pub(crate) fn new(ring: u16, kick: Arc<File>, epoll: &Epoll) -> Result<Self, VringError> {
        let counts = event::is_counter(&kick).map_err(VringError::KickLost)?;
        let how = if counts { EpollFlags::EPOLLET } else { EpollFlags::empty() };
        let mut kick = Watched::new(kick, how, number(ring, false));
        kick.want(true, epoll).map_err(|errno| match errno {
            // A regular file; a tower of epolls.
            Errno::EPERM | Errno::ELOOP => VringError::KickLost(errno.into()),
            errno => failed(errno),
        })?;
        Ok(Self { ring, kick, lasting: None })
    }

    /// The ring waits for this from now on, as far as it is watched.
    ///
    /// # Errors
    /// [`VringError::Sleep`] when that can't be.
    pub(crate) fn expect(&mut self, wait: &Wait<'_>, epoll: &Epoll) -> Result<(), VringError> {
        self.kick.want(wait.kick, epoll).map_err(failed)?;
        if let Some(file) = wait.lasting {
            let other = |lasting: &mut Watched| !Arc::ptr_eq(&lasting.file, file);
            self.lasting.take_if(other).iter_mut().for_each(|other| other.forget(epoll));
            self.lasting.get_or_insert_with(|| {
                Watched::new(Arc::clone(file), EpollFlags::empty(), number(self.ring, true))
            });
        }
        let wanted = wait.lasting.is_some();
        self.lasting.iter_mut().try_for_each(|lasting| lasting.want(wanted, epoll)).map_err(failed)
    }

    /// What `event` is to the ring, if it is its own and the ring waits for it.
    ///
    /// # Errors
    /// [`VringError::KickLost`] when there will be no kick any more.
    pub(crate) fn happened(
        &mut self,
        event: EpollEvent,
        epoll: &Epoll,
    ) -> Result<Option<Woken>, VringError> {
        if event.data() == self.kick.event.data() {
            if self.kick.is_wanted(epoll) {
                return self.kick.take_kick(event.events()).map(|()| Some(Woken::Kick));
            }
        } else if let Some(lasting) = &mut self.lasting
            && event.data() == lasting.event.data()
            && lasting.is_wanted(epoll)
        {
            return Ok(Some(Woken::Ready));
        }
        Ok(None)
    }

    /// Watches nothing any more.
    pub(crate) fn end(&mut self, epoll: &Epoll) {
        self.kick.forget(epoll);
        self.lasting.iter_mut().for_each(|lasting| lasting.forget(epoll));
    }
}

/// What is told apart by in the epoll set.
fn number(ring: u16, lasting: bool) -> u64 {
    u64::from(ring) << 1 | u64::from(lasting)
}

impl Watched {
    fn new(file: Arc<File>, how: EpollFlags, number: u64) -> Self {
        let event = EpollEvent::new(EpollFlags::EPOLLIN | how, number);
        Self { file, event, wanted: false, told: false }
    }

    /// Asks the kernel about it if it is wanted. What has happened to it before counts as well.
    fn want(&mut self, wanted: bool, epoll: &Epoll) -> Result<(), Errno> {
        if wanted && !self.told {
            epoll.add(&self.file, self.event)?;
            self.told = true;
        }
        self.wanted = wanted;
        Ok(())
    }

    /// Whether what happened to it is wanted. If not the kernel is asked no more.
    fn is_wanted(&mut self, epoll: &Epoll) -> bool {
        if !self.wanted {
            self.forget(epoll);
        }
        self.wanted
    }

    fn forget(&mut self, epoll: &Epoll) {
        if std::mem::take(&mut self.told) {
            // It is in there, as the file is open.
            let _gone = epoll.delete(&self.file);
        }
    }

    fn take_kick(&self, events: EpollFlags) -> Result<(), VringError> {
        // With more than that to say, a counter has reached its end, and starts again.
        let is_edge =
            events == EpollFlags::EPOLLIN && self.event.events().contains(EpollFlags::EPOLLET);
        let taken = match events.contains(EpollFlags::EPOLLIN) {
            true if is_edge => Ok(()),
            true => event::take(&self.file),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        };
        taken.map_err(VringError::KickLost)
    }
}

fn failed(errno: Errno) -> VringError {
    VringError::Sleep(errno.into())
}

#[cfg(test)]
#[path = "ring_watch_test.rs"]
mod tests;
