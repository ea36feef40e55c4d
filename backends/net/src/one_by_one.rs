//! Whether to ask for another packet behind the first that a wake-up found. Where packets come one by
//! one that is a system call for each to hear that there is none, which the wait for the next one finds
//! out as well: it ends at once if there is one. In a burst it would be a wait too many for each. It
//! reads nothing itself.

/// Wake-ups in a row after which nobody asks, at most. So many packets of a burst are a wait each.
const MOST: u32 = 8;

/// What wake-ups have found lately.
#[derive(Debug, Default)]
pub(crate) struct OneByOne {
    /// How many more wake-ups find one, as is to be expected.
    expected: u32,
    /// How many were expected last.
    trust: u32,
}

impl OneByOne {
    /// Whether to wait after `found` packets, as likely there are no more.
    pub(crate) fn is_all(&mut self, found: u32) -> bool {
        let all = found == 1 && self.expected > 0;
        if all {
            self.expected = self.expected.saturating_sub(1);
        }
        all
    }

    /// There were none behind `found` packets. It is believed for twice as many wake-ups each time that
    /// this is so behind one, and no longer as soon as it is not.
    pub(crate) fn ended(&mut self, found: u32) {
        match found {
            0 => {}
            1 => self.trust = self.trust.saturating_mul(2).clamp(1, MOST),
            _ => self.trust = 0,
        }
        self.expected = self.trust;
    }
}

#[cfg(test)]
#[path = "one_by_one_test.rs"]
mod tests;
