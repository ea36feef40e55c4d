//! Who wants the vCPUs stopped. They run when nobody does.
//!
//! Devices and the user hold them independently of each other, over any number of boots.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::vcpu::{Pausing, Vcpus};

/// Somebody who may want the vCPUs stopped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// Who uses the control socket.
    User,
    /// A device without its backend.
    Device(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("user"),
            Self::Device(id) => write!(f, "device {id}"),
        }
    }
}

/// What can be stopped: a boot's vCPUs.
pub(super) trait Halts: Send + Sync {
    /// What it takes to wait for it.
    type Halting;
    /// Stops, without waiting for it.
    fn halt(&self) -> Self::Halting;
    /// Goes on.
    fn go_on(&self);
}

impl Halts for Vcpus {
    type Halting = Pausing;

    fn halt(&self) -> Pausing {
        self.start_pause()
    }

    fn go_on(&self) {
        self.resume();
    }
}

/// What came of a change of mind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The vCPUs stop, which they did not before.
    Stopped,
    /// The vCPUs go on.
    GoesOn,
    /// All is as it was.
    None,
}

/// Holds the vCPUs while anybody wants it.
pub(super) struct Brake<V: Halts = Vcpus> {
    state: Mutex<State<V>>,
}

struct State<V> {
    holders: BTreeSet<Holder>,
    vcpus: Option<Arc<V>>,
}

impl<V: Halts> Brake<V> {
    /// Held by nobody, with nothing to hold.
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State { holders: BTreeSet::new(), vcpus: None }) }
    }

    /// The vCPUs of a new boot, which stop at once if anybody wants it.
    pub(super) fn attach(&self, vcpus: &Arc<V>) {
        let mut state = self.lock();
        if !state.holders.is_empty() {
            let _need_not_wait = vcpus.halt();
        }
        state.vcpus = Some(Arc::clone(vcpus));
    }

    /// Lets go of the vCPUs of a boot that is over: nobody makes them go on after this.
    pub(super) fn detach(&self) {
        self.lock().vcpus = None;
    }

    /// Has the vCPUs stopped until `holder` lets go; with what it takes to wait for it. To hold
    /// twice is to hold once.
    pub(super) fn hold(&self, holder: Holder) -> (Change, Option<V::Halting>) {
        let mut state = self.lock();
        let free = state.holders.is_empty();
        state.holders.insert(holder);
        let change = if free { Change::Stopped } else { Change::None };
        (change, state.vcpus.as_ref().map(|vcpus| vcpus.halt()))
    }

    /// Lets go of what `holder` held.
    pub(super) fn release(&self, holder: &Holder) -> Change {
        let mut state = self.lock();
        if !state.holders.remove(holder) || !state.holders.is_empty() {
            return Change::None;
        }
        if let Some(vcpus) = &state.vcpus {
            vcpus.go_on();
        }
        Change::GoesOn
    }

    /// Who holds it.
    pub(super) fn holders(&self) -> Vec<Holder> {
        self.lock().holders.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "brake_test.rs"]
mod tests;
