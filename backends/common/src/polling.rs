//! Whether to look for more work before going to sleep: where that has lately met it in time, and
//! not for a ring at rest. It looks at nothing itself.
//!
//! That work comes soon after a wake-up does not say that looking would have met it: where CPUs are
//! scarce, who looks keeps the driver, or somebody else, from running. So it is tried, compared with
//! how soon work came to a thread asleep, and tried less and less often while it is in vain.

use std::time::Duration;

/// How often work has to come soon before looking for it is tried: at first, and at most.
const FIRST: u32 = 4;
const MOST: u32 = 1024;

/// How often polling has to have met work for one pause to be worth no doubt.
const PROVEN: u32 = 32;

/// How much more often than not it meets work later than that came without, when it is in vain.
const TOO_LATE: u32 = 4;

/// Whether a ring is polled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Polling {
    on: bool,
    /// How often in a row work came soon without it, and how long that took in all.
    soon: u32,
    took: Duration,
    /// How often it has to before the next attempt.
    needed: u32,
    /// How long work took without it before this attempt.
    usual: Duration,
    /// How often this attempt has met work.
    met: u32,
    /// How much more often that was later than usual.
    late: u32,
}

impl Default for Polling {
    fn default() -> Self {
        Self::off(FIRST)
    }
}

impl Polling {
    fn off(needed: u32) -> Self {
        let (took, usual) = (Duration::ZERO, Duration::ZERO);
        Self { on: false, soon: 0, took, needed, usual, met: 0, late: 0 }
    }

    /// For how long to poll now, where `limit` is the longest.
    pub(crate) fn window(&self, limit: Duration) -> Duration {
        if self.on { limit } else { Duration::ZERO }
    }

    /// Polling met work `after` it began. If that is more than `limit`, another thread had the CPU
    /// meanwhile; if it is later than without polling, it kept the driver from it.
    pub(crate) fn met(&mut self, after: Duration, limit: Duration) {
        self.late = if after > self.usual {
            self.late.saturating_add(1)
        } else {
            self.late.saturating_sub(1)
        };
        if after > limit || self.late >= TOO_LATE {
            *self = Self::off(self.doubled());
            return;
        }
        self.met = self.met.saturating_add(1);
        if self.late == 0 {
            self.needed = FIRST;
        }
    }

    /// Polling met none.
    pub(crate) fn missed(&mut self) {
        *self = Self::off(if self.met >= PROVEN { 1 } else { self.doubled() });
    }

    /// Without polling work came `after` the last was done. Soon is half of `limit`, so that not
    /// every little delay is a miss then. Where there was no limit, something else than the driver
    /// may have been waited for, which says nothing of it.
    pub(crate) fn woken(&mut self, after: Duration, limit: Duration) {
        if limit.is_zero() {
            return;
        }
        if after.saturating_mul(2) > limit {
            (self.soon, self.took) = (0, Duration::ZERO);
            return;
        }
        self.soon = self.soon.saturating_add(1);
        self.took = self.took.saturating_add(after);
        self.on = self.soon >= self.needed;
        self.usual = self.took.checked_div(self.soon).unwrap_or_default();
    }

    fn doubled(&self) -> u32 {
        self.needed.saturating_mul(2).min(MOST)
    }
}

#[cfg(test)]
#[path = "polling_test.rs"]
mod tests;
