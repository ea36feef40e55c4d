//! How loudly the log is told of what a back-end may do again and again: it must not fill up.

use std::time::{Duration, Instant};

use tracing::{debug, warn};

/// So many warnings in so much time; the rest is for who debugs.
const WARNINGS: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// What was told lately.
#[derive(Debug, Default)]
pub(super) struct Loudness {
    since: Option<Instant>,
    told: u32,
}

impl Loudness {
    /// Tells the log of something that happened at `now`.
    pub(super) fn tell(&mut self, now: Instant, text: &str) {
        match self.allows(now) {
            Some(true) => warn!("{text}; what more there is of this within a minute is not logged"),
            Some(false) => warn!("{text}"),
            None => debug!("{text}"),
        }
    }

    /// Whether there may be one more warning, and whether it is the last one for now.
    fn allows(&mut self, now: Instant) -> Option<bool> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            *self = Self { since: Some(now), told: 0 };
        }
        self.told = self.told.saturating_add(1);
        (self.told <= WARNINGS).then_some(self.told == WARNINGS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_some_warnings_of_which_the_last_says_so() {
        let (mut loudness, start) = (Loudness::default(), Instant::now());
        let flood = (0..100).map(|_| loudness.allows(start)).collect::<Vec<_>>();
        assert_eq!(flood.iter().flatten().count(), 10);
        assert_eq!(flood[9], Some(true));
        assert!(flood[..9].iter().all(|allowed| *allowed == Some(false)));
        assert_eq!(loudness.allows(start + WINDOW / 2), None);
        assert_eq!(loudness.allows(start + WINDOW), Some(false));
    }
}
