//! Requests by io_uring, for an image that is a file of its bytes. What the page cache answers is
//! answered at once, and what io_uring has no call for goes to a thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use atoll_backend::{Chain, FileRing, Reader, Transfer, Transferred, Writer};
use nix::errno::Errno;
use tap::TapFallible;

use super::{Engine, Threads};
use crate::disk::{Answered, Disk};
use crate::raw::Raw;
use crate::request::{Action, HEADER, Request, Subject};

/// So many threads for what io_uring has no call for.
const THREADS: usize = 2;

/// A write to the page cache that takes longer waits for the disk.
const SLOW: Duration = Duration::from_millis(1);

/// How long the next writes then go through io_uring, where others need not wait for them.
const PAUSE: Duration = Duration::from_millis(100);

/// The ring of a queue, which outlives its threads.
pub(crate) type Kept = Arc<Mutex<Option<FileRing>>>;

/// Requests by io_uring.
pub(crate) struct Ring {
    disk: Arc<Disk>,
    raw: Raw,
    ring: Lent,
    threads: Threads,
    transferred: Vec<Transferred>,
    /// Whether the file system can say that something is not in the page cache.
    tells: bool,
    /// Until when writes to the page cache are not made here.
    busy_until: Option<Instant>,
}

/// A ring that goes back where it came from, with nothing in flight.
struct Lent {
    ring: Option<FileRing>,
    kept: Kept,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let ring = self.ring.take().and_then(|mut ring| {
            let finished = ring.finish();
            finished.tap_err(|error| tracing::error!("cannot finish requests: {error}")).ok()?;
            Some(ring)
        });
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = ring;
    }
}

/// What becomes of a request.
enum Next {
    Done(Subject, io::Result<()>),
    Transfer { transfer: Transfer, from: usize, len: usize },
    Thread,
}

impl Ring {
    /// With the ring in `kept`, where there is one.
    pub(crate) fn new(disk: Arc<Disk>, raw: Raw, kept: &Kept) -> io::Result<Option<Self>> {
        let ring = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if ring.is_none() {
            return Ok(None);
        }
        let ring = Lent { ring, kept: Arc::clone(kept) };
        let threads = Threads::new(Arc::clone(&disk), THREADS)?;
        let tells = !raw.is_direct();
        Ok(Some(Self {
            disk,
            raw,
            ring,
            threads,
            transferred: Vec::new(),
            tells,
            busy_until: None,
        }))
    }

    fn next(&mut self, action: Action<'_>) -> Next {
        let subject = action.subject();
        match action {
            Action::Read { offset, data } => self.read(subject, offset, data),
            Action::Write { offset, data } => self.write(subject, offset, data),
            Action::Flush if !self.disk.flushes() => Next::Done(subject, Ok(())),
            Action::Flush => Next::Transfer { transfer: Transfer::Sync, from: 0, len: 0 },
            Action::Discard { .. } | Action::WriteZeroes { .. } => Next::Thread,
            action @ Action::GetId { .. } => Next::Done(subject, self.disk.act(action)),
        }
    }

    fn read(&mut self, subject: Subject, offset: u64, mut data: Writer<'_>) -> Next {
        let len = data.len();
        if self.tells {
            match data.read_cached_at(self.raw.file().as_fd(), offset) {
                Ok(true) => return Next::Done(subject, Ok(())),
                Ok(false) => {}
                Err(error) if is_unsupported(&error) => self.tells = false,
                Err(error) => return Next::Done(subject, Err(error)),
            }
        } else if self.raw.copies(data.is_aligned(self.raw.memory_alignment())) {
            return Next::Thread;
        }
        let from = len.saturating_sub(data.len());
        let transfer = Transfer::Read { offset: offset.saturating_add(from as u64) };
        Next::Transfer { transfer, from, len: data.len() }
    }

    fn write(&mut self, subject: Subject, offset: u64, mut data: Reader<'_>) -> Next {
        let durable = self.disk.writes_durably();
        if self.raw.copies(data.is_aligned(self.raw.memory_alignment())) {
            return Next::Thread;
        }
        if self.raw.is_direct() || durable || self.is_busy() {
            let transfer = Transfer::Write { offset, durable };
            return Next::Transfer { transfer, from: HEADER, len: data.len() };
        }
        // A copy to the page cache. Whether it waits is only seen afterwards.
        let began = Instant::now();
        let result = data.write_all_at(self.raw.file().as_fd(), offset);
        if began.elapsed() > SLOW {
            self.busy_until = Instant::now().checked_add(PAUSE);
        }
        Next::Done(subject, result)
    }

    fn is_busy(&mut self) -> bool {
        let busy = self.busy_until.is_some_and(|until| Instant::now() < until);
        if !busy {
            self.busy_until = None;
        }
        busy
    }
}

impl Engine for Ring {
    fn begin(&mut self, chain: Chain, _alone: bool) -> Option<Answered> {
        let next = match Request::parse(&chain, self.disk.limits()) {
            Ok(request) => self.next(request.action),
            Err(bad) => return Some(Disk::refuse(chain, bad)),
        };
        match (next, &mut self.ring.ring) {
            (Next::Done(subject, result), _) => Some(self.disk.finish(chain, subject, result)),
            (Next::Transfer { transfer, from, len }, Some(ring)) => {
                ring.add(transfer, chain, from, len);
                None
            }
            _ => self.threads.add(chain),
        }
    }

    fn submit(&mut self) -> io::Result<()> {
        self.ring.ring.as_mut().map_or(Ok(()), FileRing::submit)
    }

    fn is_stalled(&mut self) -> bool {
        self.ring.ring.as_mut().is_some_and(FileRing::is_stalled)
    }

    fn finished(&mut self, done: &mut Vec<Answered>) {
        self.threads.finished(done);
        let Some(ring) = self.ring.ring.as_mut().filter(|ring| ring.in_flight() > 0) else {
            return;
        };
        ring.reap(&mut self.transferred);
        let answered = self.transferred.drain(..).map(|Transferred { chain, transfer, result }| {
            self.disk.finish(chain, Subject::of(transfer), result)
        });
        done.extend(answered);
    }

    fn wait(&mut self) -> io::Result<()> {
        match &mut self.ring.ring {
            Some(ring) if ring.in_flight() > 0 => ring.wait(),
            _ => self.threads.wait(),
        }
    }

    fn events(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let ring = self.ring.ring.as_ref().filter(|ring| ring.in_flight() > 0);
        let [threads, _] = self.threads.events();
        [ring.map(AsFd::as_fd), threads]
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL))
}
