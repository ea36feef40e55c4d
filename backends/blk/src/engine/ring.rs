//! Requests by io_uring, for an image that is a file of its bytes. What the page cache answers is
//! answered at once, and what io_uring has no call for goes to a thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use atoll_backend::{Chain, FileRing, Reader, Transfer, Transferred, Writer};
use tap::TapFallible;

use super::{Engine, PageCache, Threads};
use crate::disk::{Answered, Disk};
use crate::raw::Raw;
use crate::request::{Action, HEADER, Request, Subject};

/// So many threads for what io_uring has no call for.
const THREADS: usize = 2;

/// The ring of a queue, which outlives its threads.
pub(crate) type KeptRing = Arc<Mutex<Option<FileRing>>>;

/// Requests by io_uring.
pub(crate) struct Ring {
    disk: Arc<Disk>,
    raw: Raw,
    ring: Lent,
    threads: Threads,
    transferred: Vec<Transferred>,
    cache: PageCache,
}

/// A ring that goes back where it came from, with nothing in flight.
struct Lent {
    ring: Option<FileRing>,
    kept: KeptRing,
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
    pub(crate) fn new(disk: Arc<Disk>, raw: Raw, kept: &KeptRing) -> io::Result<Option<Self>> {
        let ring = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if ring.is_none() {
            return Ok(None);
        }
        let ring = Lent { ring, kept: Arc::clone(kept) };
        let threads = Threads::new(Arc::clone(&disk), THREADS, None)?;
        let cache = PageCache::new(raw.clone());
        Ok(Some(Self { disk, raw, ring, threads, transferred: Vec::new(), cache }))
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
        if self.raw.copies(data.is_aligned(self.raw.memory_alignment())) {
            return Next::Thread;
        }
        let len = data.len();
        if let Some(result) = self.cache.read(offset, &mut data) {
            return Next::Done(subject, result);
        }
        let from = len.saturating_sub(data.len());
        let transfer = Transfer::Read { offset: offset.saturating_add(from as u64) };
        Next::Transfer { transfer, from, len: data.len() }
    }

    fn write(&mut self, subject: Subject, offset: u64, mut data: Reader<'_>) -> Next {
        if self.raw.copies(data.is_aligned(self.raw.memory_alignment())) {
            return Next::Thread;
        }
        let durable = self.disk.writes_durably();
        if !durable && let Some(result) = self.cache.write(offset, &mut data) {
            return Next::Done(subject, result);
        }
        Next::Transfer {
            transfer: Transfer::Write { offset, durable },
            from: HEADER,
            len: data.len(),
        }
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

    fn is_idle(&self) -> bool {
        self.threads.is_idle() && self.ring.ring.as_ref().is_none_or(|ring| ring.in_flight() == 0)
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
