//! What the log says of failed requests: the first at once, and then so many a second, because a
//! guest can make as many requests as it likes. It decides nothing else.

use std::time::{Duration, Instant};

/// The time between two lines in the log.
const PAUSE: Duration = Duration::from_secs(1);

/// When to say something again, and what was left unsaid.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    quiet_until: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// Whether one may be made now: then how many were not since the last one.
    pub(crate) fn make(&mut self, now: Instant) -> Option<u64> {
        if self.quiet_until.is_some_and(|until| now < until) {
            self.unsaid = self.unsaid.saturating_add(1);
            return None;
        }
        self.quiet_until = now.checked_add(PAUSE);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
#[path = "complaints_test.rs"]
mod tests;
