//! What was set on a device while it runs, for the process that serves it next. How it is set is not
//! known here.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// The limits that devices of ours can have, each with its burst.
const LIMITS: [(&str, &str); 6] = [
    ("bps", "bps_burst"),
    ("iops", "iops_burst"),
    ("rx_bps", "rx_bps_burst"),
    ("rx_pps", "rx_pps_burst"),
    ("tx_bps", "tx_bps_burst"),
    ("tx_pps", "tx_pps_burst"),
];

/// The name of a limit, or of a burst, as it is known here.
pub fn limit_name(name: &str) -> Option<&'static str> {
    LIMITS.into_iter().flat_map(|(limit, burst)| [limit, burst]).find(|known| *known == name)
}

/// All names of limits and bursts.
pub fn limit_names() -> Vec<&'static str> {
    LIMITS.into_iter().flat_map(|(limit, burst)| [limit, burst]).collect()
}

/// Limits by their names, where zero stands for none.
pub type Limits = BTreeMap<&'static str, u64>;

/// The first burst among `limits` of what has no limit, and that limit.
pub fn lone_burst(limits: &Limits) -> Option<(&'static str, &'static str)> {
    let given = |name: &str| limits.get(name).is_some_and(|value| *value > 0);
    LIMITS.into_iter().find(|(limit, burst)| given(burst) && !given(limit))
}

/// What a process starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    limits: Limits,
    link_down: bool,
}

impl Settings {
    /// Those that a user starts with.
    pub fn new(limits: Limits) -> Self {
        Self { limits, link_down: false }
    }

    /// `change` was made. A limit that is taken away takes its burst along.
    pub(super) fn limit(&mut self, change: &Limits) {
        for (limit, burst) in LIMITS {
            if change.get(limit) == Some(&0) {
                self.limits.remove(burst);
            }
        }
        self.limits.extend(change);
    }

    /// The cable was plugged in, or pulled.
    pub(super) fn link(&mut self, up: bool) {
        self.link_down = !up;
    }

    /// The options of a process that starts so.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let given = |name: &str| self.limits.get(name).copied().filter(|value| *value > 0);
        let mut arguments = Vec::new();
        for (limit, burst) in LIMITS {
            let Some(value) = given(limit) else { continue };
            arguments.push(option(limit, value));
            arguments.extend(given(burst).map(|value| option(burst, value)));
        }
        if self.link_down {
            arguments.push("--link=down".into());
        }
        arguments
    }
}

fn option(name: &str, value: u64) -> OsString {
    format!("--limit-{}={value}", name.replace('_', "-")).into()
}

#[cfg(test)]
#[path = "settings_test.rs"]
mod tests;
