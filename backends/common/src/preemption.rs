//! Whether a thread of rings takes the CPU from whoever has it when it wakes. What it serves is not known
//! here.
//!
//! Usually it does, as Linux lets who has slept go first, and who waits for an answer has it the sooner.
//! But where a vCPU shares its CPU with the thread, a stream is served packet by packet then, as each kick
//! ends the vCPU's turn before the next packet is there. In the class `SCHED_BATCH` (sched(7)) a thread that
//! wakes waits until who has the CPU sleeps, or has had its share of some milliseconds, and finds all that
//! came meanwhile. Where a CPU is idle there is no difference.
//!
//! So that is tried with what looks like a stream, goes on while wake-ups bring more for it and as much
//! passes, and is tried less and less often while it is in vain.

use std::time::{Duration, Instant};

use libc::{SCHED_BATCH, SCHED_OTHER, SYS_sched_getscheduler, SYS_sched_setscheduler, c_int};
use nix::errno::Errno;
use tap::TapFallible;

use crate::carried::Carried;
use crate::sandbox::{Sysno, SystemCall};
use crate::wake_ups::RINGS;

/// After how many wake-ups it is decided anew, and after what time at the latest, so that what came after a
/// stream does not long wait for others.
const WAKE_UPS: u32 = 32;
const LONGEST: Duration = Duration::from_millis(250);

/// A stream has so many chains a second at least,
const RATE: u32 = 1000;
/// and chains of so many bytes, as segments that are to be split have,
const LARGE: u64 = 16 << 10;
/// or so many times the chains in one direction. A question and its answer are one each.
const ONE_WAY: u32 = 4;

/// How long it is not tried again after it was in vain: at first, and at most.
const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(5);

/// A class of Linux' scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Takes the CPU from others as it wakes.
    Other,
    /// Does not.
    Batch,
}

/// What came with some wake-ups.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Harvest {
    pub(crate) wake_ups: u32,
    pub(crate) rings: [Carried; RINGS],
    /// In what time.
    pub(crate) took: Duration,
}

impl Harvest {
    fn chains(&self) -> u32 {
        self.rings.iter().fold(0, |sum, ring| sum.saturating_add(ring.chains))
    }

    fn bytes(&self) -> u64 {
        self.rings.iter().fold(0, |sum, ring| sum.saturating_add(ring.bytes))
    }

    /// Whether it looks like a stream.
    fn is_stream(&self) -> bool {
        let is_large = |ring: &Carried| {
            let some = ring.chains.saturating_mul(ONE_WAY) >= self.wake_ups;
            some && ring.bytes >= u64::from(ring.chains).saturating_mul(LARGE)
        };
        let chains = self.rings.map(|ring| ring.chains);
        let more = chains.into_iter().max().unwrap_or(0);
        let fewer = chains.into_iter().min().unwrap_or(0);
        let is_one_way = more >= self.wake_ups && more >= fewer.saturating_mul(ONE_WAY);
        self.took.saturating_mul(RATE) <= Duration::from_secs(1).saturating_mul(self.chains())
            && (is_one_way || self.rings.iter().any(is_large))
    }

    /// Whether a wake-up brought half as much again as one of those of `usual`, and not much less
    /// passed: whoever waits longer finds more, but what waits with it may keep the rest from coming.
    fn pays(&self, usual: &Self) -> bool {
        let chains = |one: &Self, other: &Self| {
            u64::from(one.chains()).saturating_mul(other.wake_ups.into())
        };
        let bytes = |one: &Self, other: &Self| {
            u128::from(one.bytes()).saturating_mul(other.took.as_nanos())
        };
        let brought =
            chains(self, usual).saturating_mul(2) >= chains(usual, self).saturating_mul(3);
        let passed = bytes(self, usual).saturating_mul(4) >= bytes(usual, self).saturating_mul(3);
        brought && passed
    }
}

/// What it is decided by.
#[derive(Debug)]
pub(crate) struct Choice {
    /// What came before the class was changed, while it is.
    usual: Option<Harvest>,
    not_before: Instant,
    pause: Duration,
}

impl Choice {
    pub(crate) fn new(now: Instant) -> Self {
        Self { usual: None, not_before: now, pause: FIRST }
    }

    /// The class to be in after this `harvest` of the time until `now`.
    pub(crate) fn class(&mut self, harvest: Harvest, now: Instant) -> Class {
        match &self.usual {
            None if harvest.is_stream() && now >= self.not_before => {
                self.usual = Some(harvest);
                Class::Batch
            }
            None => Class::Other,
            Some(usual) if harvest.is_stream() && harvest.pays(usual) => {
                self.pause = FIRST;
                Class::Batch
            }
            // That it is no stream any more may be because of the waiting.
            Some(_) => {
                self.usual = None;
                self.not_before = now.checked_add(self.pause).unwrap_or(now);
                self.pause = self.pause.saturating_mul(2).min(MOST);
                Class::Other
            }
        }
    }
}

/// The class of the thread that calls this.
#[derive(Debug)]
pub(crate) struct Preemption {
    class: Class,
    choice: Choice,
    since: Instant,
    harvest: Harvest,
    /// Whether the class is nobody else's: who starts the process may have chosen one.
    ours: bool,
}

impl Preemption {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let (class, choice) = (Class::Other, Choice::new(now));
        Self { class, choice, since: now, harvest: Harvest::default(), ours: true }
    }

    /// One of the thread's rings was served.
    pub(crate) fn served(&mut self, place: usize, carried: Carried) {
        if let Some(ring) = self.harvest.rings.get_mut(place) {
            ring.add(carried);
        }
    }

    /// The thread has slept. One ring alone, which is no `pair`, has no other direction to be told from.
    pub(crate) fn woken(&mut self, pair: bool) {
        if !pair && self.class == Class::Other {
            return;
        }
        self.harvest.wake_ups = self.harvest.wake_ups.saturating_add(1);
        // While nobody waits for others the clock need not be read each time.
        let over = self.harvest.wake_ups >= WAKE_UPS
            || self.class == Class::Batch && self.since.elapsed() >= LONGEST;
        if over && self.ours {
            self.decide();
        }
    }

    #[cold]
    fn decide(&mut self) {
        let (now, mut harvest) = (Instant::now(), std::mem::take(&mut self.harvest));
        harvest.took = now.saturating_duration_since(std::mem::replace(&mut self.since, now));
        let class = self.choice.class(harvest, now);
        if class != self.class {
            let changed = change(self.class, class);
            let changed =
                changed.tap_err(|error| tracing::debug!("this thread can't be {class:?}: {error}"));
            self.ours = changed.unwrap_or(false);
            self.class = class;
        }
    }
}

impl Class {
    fn policy(self) -> c_int {
        match self {
            Self::Other => SCHED_OTHER,
            Self::Batch => SCHED_BATCH,
        }
    }
}

/// Changes this thread's class. `false` where it was another than was thought.
fn change(from: Class, to: Class) -> nix::Result<bool> {
    let this_thread: c_int = 0;
    // SAFETY: no memory is given to the kernel.
    let was = unsafe { libc::syscall(SYS_sched_getscheduler, this_thread) };
    if Errno::result(was)? != i64::from(from.policy()) {
        return Ok(false);
    }
    // The kernel's `struct sched_param`, which has one field.
    let priority: c_int = 0;
    // SAFETY: the kernel reads one `int`, which outlives the call.
    let set = unsafe {
        libc::syscall(SYS_sched_setscheduler, this_thread, to.policy(), &raw const priority)
    };
    Errno::result(set).map(|_zero| true)
}

/// Does what changes nothing: who forbids these calls on pain of death hears of it as the process starts,
/// and not when the first stream passes.
pub(crate) fn rehearse() {
    let rehearsed = change(Class::Other, Class::Other);
    let _refused =
        rehearsed.tap_err(|error| tracing::debug!("threads can't wait for others: {error}"));
}

/// What that takes.
pub(crate) fn system_calls() -> [SystemCall; 3] {
    let set = |class: Class| {
        SystemCall::any(Sysno::sched_setscheduler).with(0, 0).with(1, class.policy())
    };
    let look = SystemCall::any(Sysno::sched_getscheduler).with(0, 0);
    [look, set(Class::Other), set(Class::Batch)]
}

#[cfg(test)]
#[path = "preemption_test.rs"]
mod tests;
