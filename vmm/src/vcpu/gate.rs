//! What is wanted of all vCPUs, and who has come to rest.
//!
//! A vCPU looks here only when it was kicked, so that running costs nothing.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What vCPUs should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Run,
    Pause,
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

    /// For the controller: returns when `threads` threads are at rest, or it is not wanted any more.
    pub(super) fn wait_all_parked(&self, threads: usize) {
        let state = self.lock();
        let _state = self
            .changed
            .wait_while(state, |state| state.wanted == Wanted::Pause && state.parked < threads)
            .unwrap_or_else(PoisonError::into_inner);
    }

    /// For a vCPU: waits while a pause is wanted. False when it is to stop.
    pub(super) fn pass(&self) -> bool {
        let mut state = self.lock();
        if state.wanted == Wanted::Pause {
            state.parked += 1;
            self.changed.notify_all();
            state = self
                .changed
                .wait_while(state, |state| state.wanted == Wanted::Pause)
                .unwrap_or_else(PoisonError::into_inner);
            state.parked -= 1;
        }
        state.wanted == Wanted::Run
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
