//! A worker that does as a test says, for unit tests.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::device::{Wait, Worker};
use crate::event;
use crate::vring::{Vring, VringError};

/// Long enough for whoever waits that long to be noticed.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn eventfd() -> Arc<File> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).unwrap();
    Arc::new(OwnedFd::from(event).into())
}

/// What it does when it has served.
#[derive(Clone, Copy)]
pub(crate) enum Next {
    Kick,
    /// Waits for a kick, and has its ring looked at for as long as it takes.
    Look,
    /// Waits for its event, named for one sleep.
    Named,
    /// Waits for its event, which lasts.
    Lasting,
    Again,
    Fail,
}

/// Says each time that it serves, and asks what is next.
pub(crate) struct Scripted {
    serves: Sender<()>,
    next: Receiver<Next>,
    event: Arc<File>,
}

/// What a test has of it.
pub(crate) struct Script {
    pub(crate) kick: Arc<File>,
    pub(crate) event: Arc<File>,
    pub(crate) serves: Receiver<()>,
    pub(crate) next: Sender<Next>,
}

impl Script {
    pub(crate) fn new() -> (Self, Box<Scripted>) {
        let ((serves, served), (next, wanted)) = (mpsc::channel(), mpsc::channel());
        let event = eventfd();
        let worker = Scripted { serves, next: wanted, event: Arc::clone(&event) };
        (Self { kick: eventfd(), event, serves: served, next }, Box::new(worker))
    }

    /// It serves, and that is what is next.
    pub(crate) fn serves_and(&self, next: Next) {
        self.serves.recv_timeout(LONG).expect("it is not served");
        self.next.send(next).unwrap();
    }
}

impl Worker for Scripted {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        while let Some(chain) = vring.next()? {
            vring.complete(chain, 0)?;
        }
        event::take(&self.event).map_err(VringError::Sleep)?;
        // Nobody listens any more when the test is over.
        let _over = self.serves.send(());
        Ok(match self.next.recv().unwrap_or(Next::Kick) {
            Next::Kick => Wait::kick(),
            Next::Look => Wait::kick().polling(LONG),
            Next::Named => Wait::no_kick().on(self.event.as_fd(), PollFlags::POLLIN),
            Next::Lasting => Wait::no_kick().on_lasting(&self.event),
            Next::Again => Wait::nothing(),
            Next::Fail => return Err(VringError::Device("as it was told".into())),
        })
    }
}
