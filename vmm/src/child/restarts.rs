//! When a backend that died is started again, and when no more. Pure: times come from the caller.
//!
//! A backend that had run for a while is back at once. One that dies as soon as it is started waits
//! twice as long each time, and is given up when it has done so [`LIMIT`] times within a minute:
//! then something is wrong that no start puts right.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Before the first restart.
const FIRST_WAIT: Duration = Duration::from_millis(10);
/// Before any.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A backend that lived this long did not die of its start.
const HEALTHY: Duration = Duration::from_secs(1);
/// As many early deaths within [`WINDOW`] are enough. With the waits above no backend that lives
/// for half a second gets there.
const LIMIT: usize = 20;
const WINDOW: Duration = Duration::from_secs(60);

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
    early: VecDeque<Instant>,
}

impl Restarts {
    pub(super) fn new() -> Self {
        Self { wait: FIRST_WAIT, not_before: None, early: VecDeque::new() }
    }

    /// It died at `now`, having lived for `age`.
    pub(super) fn died(&mut self, age: Duration, now: Instant) {
        if age >= HEALTHY {
            *self = Self::new();
        } else {
            self.early.push_back(now);
            self.early.retain(|&death| now.saturating_duration_since(death) < WINDOW);
        }
        self.not_before = now.checked_add(self.wait);
        self.wait = LONGEST_WAIT.min(self.wait.saturating_mul(2));
    }

    /// What to do at `now`, when it is not running.
    pub(super) fn next(&self, now: Instant) -> Next {
        if self.early.len() >= LIMIT {
            return Next::GiveUp;
        }
        match self.not_before.map(|at| at.saturating_duration_since(now)) {
            Some(wait) if !wait.is_zero() => Next::Wait(wait),
            _ => Next::Start,
        }
    }

    /// How many times in a row it died early, within the window.
    pub(super) fn early_deaths(&self) -> usize {
        self.early.len()
    }
}

#[cfg(test)]
#[path = "restarts_test.rs"]
mod tests;
