//! When a backend that died is started again, and when no more. Pure: times come from the caller.
//!
//! A backend that had run for a while is back at once. One that dies soon waits twice as long each
//! time. One that dies of every start is given up: then something is wrong that no start puts right.

use std::time::{Duration, Instant};

/// Before the first restart.
const FIRST_WAIT: Duration = Duration::from_millis(10);
/// Before any.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A backend that lived this long need not wait longer than the first time.
const HEALTHY: Duration = Duration::from_secs(1);
/// A backend that lived this long did not die of its start.
const STARTED: Duration = Duration::from_millis(250);
/// As many deaths of a start in a row are enough: after about half a minute.
const LIMIT: u32 = 15;

/// What is to be done about a backend that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Start it.
    Start,
    /// Not yet.
    Wait(Duration),
    /// It has died too often.
    GiveUp,
}

/// The deaths of one backend.
#[derive(Debug)]
pub(super) struct Restarts {
    wait: Duration,
    not_before: Option<Instant>,
    /// How many starts in a row it died of.
    failed: u32,
}

impl Restarts {
    pub(super) fn new() -> Self {
        Self { wait: FIRST_WAIT, not_before: None, failed: 0 }
    }

    /// It died at `now`, having lived for `age`.
    pub(super) fn died(&mut self, age: Duration, now: Instant) {
        if age >= HEALTHY {
            self.wait = FIRST_WAIT;
        }
        self.failed = if age >= STARTED { 0 } else { self.failed.saturating_add(1) };
        self.not_before = now.checked_add(self.wait);
        self.wait = LONGEST_WAIT.min(self.wait.saturating_mul(2));
    }

    /// What to do at `now`, when it is not running.
    pub(super) fn next(&self, now: Instant) -> Next {
        if self.failed >= LIMIT {
            return Next::GiveUp;
        }
        match self.not_before.map(|at| at.saturating_duration_since(now)) {
            Some(wait) if !wait.is_zero() => Next::Wait(wait),
            _ => Next::Start,
        }
    }

    /// How many starts in a row it died of.
    pub(super) fn failed_starts(&self) -> u32 {
        self.failed
    }
}

#[cfg(test)]
#[path = "restarts_test.rs"]
mod tests;
