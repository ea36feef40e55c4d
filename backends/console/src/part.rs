//! A chain that was printed in part, remembered from one serving of its ring to the next: the ring may
//! only have stopped and go on, or be another driver's by then. It prints nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use atoll_backend::Chain;

/// How much of a chain is printed that is in its ring still. Another is taken for it only where both are the
/// first of their rings, are of one length, and the second is there when its ring starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    position: Option<u16>,
    len: u64,
    printed: usize,
}

impl Part {
    pub(crate) fn of(chain: &Chain, printed: usize) -> Self {
        Self { position: chain.position(), len: chain.readable_bytes(), printed }
    }

    /// How much of `chain` is printed.
    pub(crate) fn printed_of(&self, chain: &Chain) -> usize {
        if *self == Self::of(chain, self.printed) { self.printed } else { 0 }
    }
}

/// What the last worker of a port's transmit queue printed in part, for the next one.
#[derive(Debug, Default)]
pub(crate) struct LastPart(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    part: Option<Part>,
    resets: Resets,
}

/// How often the device was reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resets(u64);

impl LastPart {
    /// For a worker that begins.
    pub(crate) fn take(&self) -> (Option<Part>, Resets) {
        let mut state = self.state();
        (state.part.take(), state.resets)
    }

    /// From a worker that ends, and began after so many `resets`: what it has is nothing to one that begins
    /// after another.
    pub(crate) fn put(&self, part: Option<Part>, resets: Resets) {
        let mut state = self.state();
        if state.resets == resets {
            state.part = part;
        }
    }

    /// The driver forgets what it has in its ring, which may be served still.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        let resets = Resets(state.resets.0.wrapping_add(1));
        *state = State { part: None, resets };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "part_test.rs"]
mod tests;
