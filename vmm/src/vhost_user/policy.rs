//! What becomes of a machine whose device has lost its back-end, as the user wants it.
//!
//! Says what to do and for how long, but does nothing.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What to do while a device has no back-end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// The guest's requests wait.
    Wait,
    /// The vCPUs wait as well.
    Pause,
    /// The guest is told that the device needs a reset.
    Reset,
    /// The machine ends.
    Stop,
}

impl OnDisconnect {
    const ALL: [(Self, &str); 4] = [
        (Self::Wait, "wait"),
        (Self::Pause, "pause"),
        (Self::Reset, "reset"),
        (Self::Stop, "stop"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(each, _)| *each == self).map_or("", |(_, name)| name)
    }
}

/// What to do while a device has no back-end, one thing after another, each for some time; the last
/// for as long as it takes. Written `pause:30:stop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy(Vec<(OnDisconnect, Option<Duration>)>);

/// Why a text is no policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No such thing can be done.
    #[error(
        "there is no policy `{0}`; it is wait, pause, reset or stop, or one for some seconds \
             and then another, as in pause:30:stop"
    )]
    Unknown(String),
    /// Not a number of seconds.
    #[error("`{0}` is not a number of seconds from 1 up")]
    Seconds(String),
    /// A time without what comes after it.
    #[error("after {0} seconds of `{1}` there must be another policy, as in pause:30:stop")]
    Endless(u64, &'static str),
    /// What can't be followed by anything.
    #[error("nothing comes after `stop`")]
    AfterStop,
}

impl Policy {
    /// What to do in stage `number`, counted from 0, and for how long.
    pub(super) fn stage(&self, number: usize) -> Option<(OnDisconnect, Option<Duration>)> {
        self.0.get(number).copied()
    }

    /// What to do about a back-end that is there again when waiting for it was in vain, since
    /// nobody can know what its predecessor left undone: the first that is more than waiting, from
    /// stage `number` on.
    pub(super) fn beyond_waiting(&self, number: usize) -> OnDisconnect {
        let waits = |stage| matches!(stage, OnDisconnect::Wait | OnDisconnect::Pause);
        let rest = self.0.iter().skip(number).map(|&(stage, _)| stage);
        rest.into_iter().find(|&stage| !waits(stage)).unwrap_or(OnDisconnect::Reset)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self(vec![(OnDisconnect::Wait, None)])
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let mut stages = Vec::new();
        let mut words = text.split(':');
        while let Some(word) = words.next() {
            let (stage, name) = OnDisconnect::ALL
                .into_iter()
                .find(|(_, name)| *name == word)
                .ok_or_else(|| PolicyError::Unknown(word.to_owned()))?;
            if let Some((OnDisconnect::Stop, _)) = stages.last() {
                return Err(PolicyError::AfterStop);
            }
            let Some(seconds) = words.next() else {
                stages.push((stage, None));
                return Ok(Self(stages));
            };
            let time = seconds.parse().ok().filter(|&seconds: &u64| seconds > 0);
            let time = time.ok_or_else(|| PolicyError::Seconds(seconds.to_owned()))?;
            if stage == OnDisconnect::Stop {
                return Err(PolicyError::AfterStop);
            }
            stages.push((stage, Some(Duration::from_secs(time))));
            if words.clone().next().is_none() {
                return Err(PolicyError::Endless(time, name));
            }
        }
        Ok(Self(stages))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (stage, time)) in self.0.iter().enumerate() {
            let colon = if number == 0 { "" } else { ":" };
            write!(f, "{colon}{}", stage.name())?;
            if let Some(time) = time {
                write!(f, ":{}", time.as_secs())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "policy_test.rs"]
mod tests;
