//! Serves one queue of a block device: each request is taken, begun, and completed when it is done,
//! in any order. How it is done is the engine's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atoll_backend::{Chain, Limiter, Vring, VringError, Wait, Worker};
use nix::poll::PollFlags;

use crate::disk::{Answered, give_up};
use crate::engine::Engine;

/// How soon to try again when the kernel is short of memory.
const RETRY: Duration = Duration::from_millis(1);

/// How soon to try again when the host has no space.
const SPACE_RETRY: Duration = Duration::from_secs(1);

/// What a request has besides its data: a header and a status (virtio 1.3 §5.2.6).
const FRAME: u64 = 16 + 1;

/// What serves one queue.
pub(crate) struct BlockQueue {
    pub(crate) engine: Box<dyn Engine>,
    /// Shared by all queues of the disk.
    pub(crate) limiter: Arc<Limiter>,
    /// How long to look for more requests before going to sleep.
    pub(crate) polling: Duration,
    /// What is done, on its way to the ring.
    pub(crate) done: Vec<Answered>,
    /// What waits for space on the host.
    pub(crate) waiting: Waiting,
}

/// Requests for which the host had no space.
#[derive(Default)]
pub(crate) struct Waiting {
    chains: Vec<Chain>,
    /// When they are tried again.
    until: Option<Instant>,
    /// What becomes of more of them.
    fate: Fate,
}

/// What becomes of a request for which there is no space.
#[derive(Clone, Copy, Default)]
enum Fate {
    /// It is tried again.
    #[default]
    Waits,
    /// The ring stops, and whoever serves it next tries again.
    Left,
    /// The ring stops, and nobody would.
    Fails,
}

impl Worker for BlockQueue {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        self.complete(vring)?;
        // The driver gets up while what it has put there meanwhile is begun.
        vring.call_if_wanted()?;
        if self.waiting.until.is_some_and(|until| until <= Instant::now()) {
            self.begin_again(vring)?;
        }
        while let Some(chain) = vring.next()? {
            if let Err(wait) = self.admit(&chain) {
                vring.count_throttled();
                vring.give_back(chain)?;
                self.submit(vring)?;
                return Ok(self.watch(vring, Wait::no_kick().within(wait)));
            }
            let alone = vring.in_flight() == 1 && !vring.has_next()?;
            if let Some(answered) = self.engine.begin(chain, alone) {
                self.waiting.complete(vring, answered)?;
                vring.call_if_wanted()?;
            }
        }
        self.submit(vring)?;
        if vring.in_flight() == 0 {
            return Ok(Wait::kick().polling(self.polling));
        }
        let wait = if self.engine.is_stalled() { Wait::kick().within(RETRY) } else { Wait::kick() };
        Ok(self.watch(vring, wait))
    }

    fn drain(&mut self, vring: &mut Vring) -> Result<(), VringError> {
        if vring.is_leaving() {
            self.waiting.fate = Fate::Left;
            self.waiting.chains.drain(..).for_each(|chain| vring.leave(chain));
        } else {
            self.waiting.fate = Fate::Fails;
            self.begin_again(vring)?;
        }
        // Not until the ring has all of them: where it broke, some never came back to it.
        while !self.engine.is_idle() {
            self.engine.wait().map_err(|error| VringError::Device(error.into()))?;
            self.complete(vring)?;
        }
        Ok(())
    }
}

impl BlockQueue {
    fn complete(&mut self, vring: &mut Vring) -> Result<(), VringError> {
        self.engine.finished(&mut self.done);
        self.done.drain(..).try_for_each(|answered| self.waiting.complete(vring, answered))
    }

    /// Begins again with what had no space.
    fn begin_again(&mut self, vring: &mut Vring) -> Result<(), VringError> {
        self.waiting.until = None;
        for chain in std::mem::take(&mut self.waiting.chains) {
            if let Some(answered) = self.engine.begin(chain, false) {
                self.waiting.complete(vring, answered)?;
            }
        }
        self.submit(vring)
    }

    /// Hands over what was begun, and completes what is done at once.
    fn submit(&mut self, vring: &mut Vring) -> Result<(), VringError> {
        self.engine.submit().map_err(|error| VringError::Device(error.into()))?;
        self.complete(vring)
    }

    /// Waits for what is in flight as well.
    fn watch<'a>(&'a self, vring: &Vring, wait: Wait<'a>) -> Wait<'a> {
        let fds = if vring.in_flight() > 0 { self.engine.events() } else { [None, None] };
        let left = self.waiting.until.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = left.into_iter().fold(wait, Wait::within);
        fds.into_iter().flatten().fold(wait, |wait, fd| wait.on(fd, PollFlags::POLLIN))
    }

    /// Whether the limits let the chain through now; else how long to wait. What a process before
    /// this one left in flight counts, but does not wait: the ring may be about to stop.
    fn admit(&self, chain: &Chain) -> Result<(), Duration> {
        let bytes = chain.readable_bytes().saturating_add(chain.writable_bytes().into());
        let bytes = bytes.saturating_sub(FRAME);
        if chain.is_resubmitted() {
            self.limiter.charge(bytes);
            return Ok(());
        }
        self.limiter.take(bytes)
    }
}

impl Waiting {
    fn complete(&mut self, vring: &mut Vring, answered: Answered) -> Result<(), VringError> {
        let answered = match (answered, self.fate) {
            (Answered { waits: true, chain, .. }, Fate::Waits) => {
                self.chains.push(chain);
                self.until = self.until.or_else(|| Instant::now().checked_add(SPACE_RETRY));
                return Ok(());
            }
            (Answered { waits: true, chain, .. }, Fate::Left) => {
                vring.leave(chain);
                return Ok(());
            }
            (Answered { waits: true, chain, .. }, Fate::Fails) => give_up(chain),
            (answered, _) => answered,
        };
        let Answered { chain, written, failed, .. } = answered;
        if failed {
            vring.count_error();
        }
        vring.complete(chain, written)
    }
}
