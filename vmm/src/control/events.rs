//! What happened to a machine: the last events, numbered, for whoever wants to know.
//!
//! Whoever reports an event never waits for those who read it: a reader comes for what it has not
//! had yet, and one that comes too late has missed something and is told so.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::irq;

/// How many are kept.
const KEPT: usize = 256;

/// An event as a line of JSON.
type Line = Arc<str>;

/// The events of a machine.
#[derive(Debug)]
pub struct EventLog {
    kept: Mutex<Kept>,
    /// Signalled with every event.
    news: irq::Event,
}

#[derive(Debug, Default)]
struct Kept {
    /// The number of the last event.
    last: u64,
    lines: VecDeque<Line>,
}

/// An event with its number and time.
#[derive(Serialize)]
struct Stamped<'a, E> {
    seq: u64,
    time_ms: u64,
    #[serde(flatten)]
    event: &'a E,
}

/// Events that a reader wanted are not kept any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missed;

impl EventLog {
    /// A log without events.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { kept: Mutex::default(), news: irq::Event::new()? })
    }

    /// Adds an event, whose fields become those of its line.
    pub fn publish(&self, event: &impl Serialize) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let mut kept = self.lock();
        let seq = kept.last.saturating_add(1);
        match serde_json::to_string(&Stamped { seq, time_ms, event }) {
            Ok(mut line) => {
                line.push('\n');
                kept.last = seq;
                kept.lines.push_back(line.into());
                if kept.lines.len() > KEPT {
                    kept.lines.pop_front();
                }
            }
            Err(error) => tracing::debug!("an event can't be written as JSON: {error}"),
        }
        drop(kept);
        self.news.signal();
    }

    /// The events after number `seen`, and the number of the last of them.
    pub(super) fn after(&self, seen: u64) -> Result<(Vec<Line>, u64), Missed> {
        let kept = self.lock();
        let count = usize::try_from(kept.last.saturating_sub(seen)).unwrap_or(usize::MAX);
        let first = kept.lines.len().checked_sub(count).ok_or(Missed)?;
        Ok((kept.lines.iter().skip(first).cloned().collect(), kept.last.max(seen)))
    }

    /// The highest number before those that are kept: nothing is missed after it.
    pub(super) fn forgotten(&self) -> u64 {
        let kept = self.lock();
        kept.last.saturating_sub(u64::try_from(kept.lines.len()).unwrap_or(u64::MAX))
    }

    /// Takes the signal that there is something new.
    pub(super) fn hear(&self) {
        self.news.drain();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for EventLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}

#[cfg(test)]
#[path = "events_test.rs"]
mod tests;
