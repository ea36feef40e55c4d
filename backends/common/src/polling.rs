//! For how long to look for more work before going to sleep: as long as it has lately paid, and not
//! at all for a ring at rest. It looks at nothing itself.

use std::time::Duration;

/// The first step up from nothing, as a part of the limit.
const FIRST: u32 = 4;

/// How long a ring is polled, adapted to how soon work comes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Polling {
    window: Duration,
}

impl Polling {
    /// For how long to poll now, which is never longer than `limit`.
    pub(crate) fn window(&self, limit: Duration) -> Duration {
        self.window.min(limit)
    }

    /// There is no more time for it: it begins again as for a ring that was at rest.
    pub(crate) fn stop(&mut self) {
        self.window = Duration::ZERO;
    }

    /// Work came `after` the last of it was done. Polling for as long as `limit` would have met it,
    /// or would have been in vain.
    pub(crate) fn work_came(&mut self, after: Duration, limit: Duration) {
        self.window = if after <= limit {
            self.window.saturating_mul(2).clamp(limit / FIRST, limit)
        } else {
            self.window / 2
        };
        if self.window < limit / FIRST {
            self.window = Duration::ZERO;
        }
    }
}

#[cfg(test)]
#[path = "polling_test.rs"]
mod tests;
