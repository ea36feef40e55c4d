//! Requests by threads, each of which does one at a time: for images that are not just a file of
//! their bytes, where io_uring is not permitted, and for what may take long there.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use atoll_backend::Chain;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tap::TapFallible;

use super::{Engine, PageCache};
use crate::disk::{Answered, Disk};
use crate::request::{Action, Request, Subject};

/// Of a thread: what a format's driver needs for a request.
const STACK: usize = 256 * 1024;

#[derive(Default)]
struct Work {
    /// What no thread has begun with.
    waiting: VecDeque<Chain>,
    done: Vec<Answered>,
    /// Threads that wait for work.
    resting: usize,
    ended: bool,
}

struct Shared {
    disk: Arc<Disk>,
    work: Mutex<Work>,
    /// There is work, or no more.
    begun: Condvar,
    /// Something is done.
    done: Condvar,
    event: EventFd,
}

/// The threads of one queue, which start as they are needed.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    most: usize,
    /// What needs no thread, if anything.
    cache: Option<PageCache>,
    /// Requests that were begun and not taken back.
    in_flight: usize,
}

impl Threads {
    /// At most so many threads, none of which runs yet. What `cache` answers takes none.
    pub(crate) fn new(disk: Arc<Disk>, most: usize, cache: Option<PageCache>) -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let (work, begun, done) = Default::default();
        let shared = Arc::new(Shared { disk, work, begun, done, event });
        Ok(Self { shared, threads: Vec::new(), most, cache, in_flight: 0 })
    }

    /// What the page cache answers.
    fn at_once(&mut self, chain: &Chain) -> Option<(Subject, io::Result<()>)> {
        let (cache, disk) = (self.cache.as_mut()?, &self.shared.disk);
        let action = Request::parse(chain, disk.limits()).ok()?.action;
        let subject = action.subject();
        let result = match action {
            Action::Read { offset, mut data } => cache.read(offset, &mut data),
            Action::Write { offset, mut data } if !disk.writes_durably() => {
                cache.write(offset, &mut data)
            }
            _ => None,
        };
        result.map(|result| (subject, result))
    }

    /// Begins with the request in `chain`, unless there is no thread to do it.
    pub(crate) fn add(&mut self, chain: Chain) -> Option<Answered> {
        let mut work = self.shared.lock();
        let short = work.waiting.len() >= work.resting;
        if short && self.threads.len() < self.most {
            let shared = Arc::clone(&self.shared);
            let name = format!("io{}", self.threads.len());
            let start = thread::Builder::new().name(name).stack_size(STACK);
            let started = start.spawn(move || shared.serve());
            let started = started.tap_err(|error| tracing::warn!("cannot start a thread: {error}"));
            self.threads.extend(started);
        }
        if self.threads.is_empty() {
            drop(work);
            return Some(self.shared.disk.answer(chain));
        }
        work.waiting.push_back(chain);
        drop(work);
        self.shared.begun.notify_one();
        self.in_flight = self.in_flight.saturating_add(1);
        None
    }
}

impl Engine for Threads {
    fn begin(&mut self, chain: Chain, alone: bool) -> Option<Answered> {
        if alone {
            // Waking a thread would take longer than most requests do.
            return Some(self.shared.disk.answer(chain));
        }
        match self.at_once(&chain) {
            Some((subject, result)) => Some(self.shared.disk.finish(chain, subject, result)),
            None => self.add(chain),
        }
    }

    fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    fn finished(&mut self, done: &mut Vec<Answered>) {
        if self.in_flight == 0 {
            return;
        }
        match self.shared.event.read() {
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(errno) => tracing::debug!("cannot read an eventfd: {errno}"),
        }
        let mut work = self.shared.lock();
        self.in_flight = self.in_flight.saturating_sub(work.done.len());
        done.append(&mut work.done);
    }

    fn wait(&mut self) -> io::Result<()> {
        let nothing = |work: &mut Work| work.done.is_empty();
        let waited = self.shared.done.wait_while(self.shared.lock(), nothing);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    fn events(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [(self.in_flight > 0).then(|| self.shared.event.as_fd()), None]
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.begun.notify_all();
        for thread in self.threads.drain(..) {
            // A panic has ended the process by now, or a test's thread.
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut work = self.lock();
        loop {
            if let Some(chain) = work.waiting.pop_front() {
                drop(work);
                let answered = self.disk.answer(chain);
                work = self.lock();
                work.done.push(answered);
                self.done.notify_one();
                // It can only fail when its counter is full, and then it is readable.
                let _full = self.event.write(1);
                continue;
            }
            if work.ended {
                return;
            }
            work.resting = work.resting.saturating_add(1);
            work = self.begun.wait(work).unwrap_or_else(PoisonError::into_inner);
            work.resting = work.resting.saturating_sub(1);
        }
    }
}
