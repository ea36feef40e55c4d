//! What is wanted of all vCPUs, and who has come to rest.
//!
//! A vCPU looks here only when it was kicked, so that running costs nothing.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What vCPUs should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Run,
    Pause,
    Stop,
}

/// How a vCPU came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// It need not have looked.
    Freely,
    /// Time has gone by.
    AfterPause,
    /// It may not go on.
    Stop,
}

struct State {
    wanted: Wanted,
    /// Threads that wait here or have ended.
    parked: usize,
}

/// Shared by a machine's vCPU threads and whoever controls them.
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State { wanted: Wanted::Run, parked: 0 }),
            changed: Condvar::new(),
        }
    }

    /// For the controller. Vcpus in the guest have to be kicked to notice.
    pub(super) fn set(&self, wanted: Wanted) {
        self.lock().wanted = wanted;
        self.changed.notify_all();
    }

    /// For the controller: returns when `threads` threads are at rest, or it is not wanted any more;
    /// false when that takes longer than `patience`.
    pub(super) fn wait_all_parked(&self, threads: usize, patience: Duration) -> bool {
        let waits = |state: &mut State| state.wanted == Wanted::Pause && state.parked < threads;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, waits);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// For a vCPU: waits while a pause is wanted.
    pub(super) fn pass(&self) -> Passed {
        let mut state = self.lock();
        let paused = state.wanted == Wanted::Pause;
        if paused {
            state.parked += 1;
            self.changed.notify_all();
            state = self
                .changed
                .wait_while(state, |state| state.wanted == Wanted::Pause)
                .unwrap_or_else(PoisonError::into_inner);
            state.parked -= 1;
        }
        match state.wanted {
            Wanted::Stop => Passed::Stop,
            _ if paused => Passed::AfterPause,
            _ => Passed::Freely,
        }
    }

    /// For a vCPU whose thread ends: it is at rest for ever.
    pub(super) fn leave(&self) {
        self.lock().parked += 1;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
