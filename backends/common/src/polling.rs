//! Whether to look for more work before going to sleep: where that has lately met it in time, and
//! not for a ring at rest. It looks at nothing itself.
//!
//! That work comes soon after a wake-up does not say that looking would have met it: where CPUs are
//! scarce, who looks keeps the driver, or somebody else, from running. So it is tried, and tried
//! less and less often while it is in vain.

use std::time::Duration;

/// How often work has to come soon before looking for it is tried: at first, and at most.
const FIRST: u32 = 4;
const MOST: u32 = 1024;

/// Whether a ring is polled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Polling {
    on: bool,
    /// How often in a row work came soon without it.
    soon: u32,
    /// How often it has to before the next attempt.
    needed: u32,
}

impl Default for Polling {
    fn default() -> Self {
        Self { on: false, soon: 0, needed: FIRST }
    }
}

impl Polling {
    /// For how long to poll now, where `limit` is the longest.
    pub(crate) fn window(&self, limit: Duration) -> Duration {
        if self.on { limit } else { Duration::ZERO }
    }

    /// Polling met work `after` it began. If that is more than `limit`, another thread had the CPU
    /// meanwhile.
    pub(crate) fn met(&mut self, after: Duration, limit: Duration) {
        if after > limit {
            self.missed();
        } else {
            self.needed = FIRST;
        }
    }

    /// Polling met none.
    pub(crate) fn missed(&mut self) {
        let needed = self.needed.saturating_mul(2).min(MOST);
        *self = Self { on: false, soon: 0, needed };
    }

    /// Without polling work came `after` the last was done.
    pub(crate) fn woken(&mut self, after: Duration, limit: Duration) {
        self.soon = if after <= limit { self.soon.saturating_add(1) } else { 0 };
        self.on = !limit.is_zero() && self.soon >= self.needed;
    }
}

#[cfg(test)]
#[path = "polling_test.rs"]
mod tests;
