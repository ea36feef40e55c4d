//! One ring while a thread serves it: a round of that, what is waited for after it, and the end. What
//! else the thread serves is not known here.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent};

use crate::device::{Wait, Worker};
use crate::polling::Polling;
use crate::ring_watch::{RingWatch, Woken};
use crate::vring::{Vring, VringError};

/// A ring that is served.
pub(crate) struct ServedRing {
    vring: Vring,
    /// What is watched for it; nothing any more once it has failed.
    watch: Option<RingWatch>,
    /// Whether it is to be served before the thread sleeps.
    due: bool,
    /// What its worker waits for.
    kick: bool,
    ahead: u16,
    deadline: Option<Instant>,
    /// Whether it waits for descriptors that are named for each sleep, so that it is served after each.
    names: bool,
    polling: Polling,
    /// For how long its worker has it looked at, at most, and since when.
    limit: Duration,
    idle: Option<Instant>,
    /// For how long it is looked at now.
    window: Option<Duration>,
}

impl ServedRing {
    /// `vring`, which nothing is watched for yet.
    pub(crate) fn new(vring: Vring) -> Self {
        Self {
            vring,
            watch: None,
            due: true,
            kick: false,
            ahead: 0,
            deadline: None,
            names: false,
            polling: Polling::default(),
            limit: Duration::ZERO,
            idle: None,
            window: None,
        }
    }

    pub(crate) fn index(&self) -> u16 {
        self.vring.index()
    }

    pub(crate) fn vring(&self) -> &Vring {
        &self.vring
    }

    pub(crate) fn into_vring(self) -> Vring {
        self.vring
    }

    /// Whether it is to be served before the thread sleeps.
    pub(crate) fn is_due(&self) -> bool {
        self.due
    }

    /// Whether it waits for what its worker has to name anew for each sleep.
    pub(crate) fn names(&self) -> bool {
        self.names
    }

    /// Nothing wakes the thread for it any more.
    pub(crate) fn rest(&mut self, epoll: &Epoll) {
        self.watch.take().iter_mut().for_each(|watch| watch.end(epoll));
        (self.due, self.names, self.window, self.deadline) = (false, false, None, None);
    }

    /// Watches for its kicks.
    pub(crate) fn watch(&mut self, kick: Arc<File>, epoll: &Epoll) -> Result<(), VringError> {
        self.watch = Some(RingWatch::new(self.index(), kick, epoll)?);
        Ok(())
    }

    /// Has `worker` serve it, and takes down what it waits for.
    pub(crate) fn serve<'worker>(
        &mut self,
        worker: &'worker mut dyn Worker,
        epoll: &Epoll,
    ) -> Result<Wait<'worker>, VringError> {
        self.vring.begin_round()?;
        let wait = worker.serve(&mut self.vring)?;
        self.vring.call_if_wanted()?;
        (self.due, self.kick, self.ahead) = (wait.again, wait.kick, wait.ahead);
        self.deadline = wait.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.names = wait.fds.iter().any(Option::is_some);
        // Where nobody polls, the clock is not read either.
        self.limit = if wait.kick && !wait.again { wait.polling } else { Duration::ZERO };
        self.idle = (!self.limit.is_zero()).then(Instant::now);
        self.window = Some(self.polling.window(self.limit)).filter(|window| !window.is_zero());
        if let Some(watch) = self.watch.as_mut().filter(|_| !wait.again) {
            watch.expect(&wait, epoll)?;
        }
        if !self.due && self.window.is_none() {
            self.ask()?;
        }
        Ok(wait)
    }

    /// Calls the driver if that is due.
    pub(crate) fn call_if_wanted(&mut self) -> Result<(), VringError> {
        self.vring.call_if_wanted()
    }

    /// Asks the driver for kicks, if its worker waits for them.
    fn ask(&mut self) -> Result<(), VringError> {
        self.due = self.kick && self.vring.want_kicks(self.ahead)?;
        self.vring.check_memory()
    }

    /// Whether it is to be looked at before the thread sleeps.
    pub(crate) fn is_polled(&self) -> bool {
        self.window.is_some()
    }

    /// Looks at it. The driver is not asked to kick meanwhile.
    pub(crate) fn look(&mut self) -> Result<(), VringError> {
        if self.window.is_some() && self.vring.has_next()? {
            self.polling.met(self.idle.map_or(Duration::ZERO, |idle| idle.elapsed()), self.limit);
            self.window = None;
            self.due = true;
        }
        Ok(())
    }

    /// Ends looking at it once it has been long enough.
    pub(crate) fn look_at_clock(&mut self) -> Result<(), VringError> {
        let over = |window| self.idle.is_none_or(|idle| idle.elapsed() >= window);
        if self.window.is_some_and(over) {
            self.polling.missed();
            self.window = None;
            // Not since it was asked to be woken.
            self.idle = None;
            self.ask()?;
        }
        Ok(())
    }

    /// Something has happened that is watched for one of the thread's rings.
    pub(crate) fn happened(&mut self, event: EpollEvent, epoll: &Epoll) -> Result<(), VringError> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        match watch.happened(event, epoll)? {
            Some(Woken::Kick) => {
                if let Some(idle) = self.idle.filter(|_| self.window.is_none()) {
                    self.polling.woken(idle.elapsed(), self.limit);
                }
                self.due = true;
            }
            Some(Woken::Ready) => self.due = true,
            None => {}
        }
        Ok(())
    }

    /// The thread has slept: what is named for each sleep may be why it woke.
    pub(crate) fn woken(&mut self) {
        self.due |= self.names || self.deadline.is_some_and(|deadline| deadline <= Instant::now());
    }

    /// When it is to be served at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Ends serving it: what is in flight is finished, or if it is `leaving` stays so where there is a
    /// record of it.
    pub(crate) fn end(&mut self, worker: &mut dyn Worker, leaving: bool) -> Result<(), VringError> {
        self.finish_resubmitted(worker)?;
        self.vring.set_leaving(leaving);
        worker.drain(&mut self.vring)?;
        self.vring.call_if_wanted()?;
        if self.vring.in_flight() > 0 {
            let (index, lost) = (self.vring.index(), self.vring.in_flight());
            tracing::error!("vring {index} lost {lost} chains");
        }
        Ok(())
    }

    /// Does what a process before this one left in flight, as far as that can be done now: a ring that
    /// stops right after its start would else stop with it in flight (vhost-user, `GET_VRING_BASE`).
    fn finish_resubmitted(&mut self, worker: &mut dyn Worker) -> Result<(), VringError> {
        let mut left = self.vring.resubmitted();
        while left > 0 {
            self.vring.begin_round()?;
            worker.serve(&mut self.vring)?;
            let now = self.vring.resubmitted();
            if now >= left {
                break;
            }
            left = now;
        }
        self.vring.check_memory()
    }
}
