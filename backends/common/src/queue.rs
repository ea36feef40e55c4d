//! One queue as the front-end sets it up, message by message: a state machine without I/O.
//!
//! ```text
//!             size, addresses, kick and enabled          failure
//!   stopped ─────────────────────────────────► running ──────────► broken
//!      ▲                                          │                  │
//!      └──── GET_VRING_BASE, disable, disconnect ─┴──────────────────┘
//! ```

use std::fs::File;
use std::sync::Arc;

/// Where the front-end has the three parts of a ring, in its own address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingAddresses {
    pub(crate) descriptors: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
}

/// What the front-end has said of one queue.
#[derive(Debug, Default)]
pub(crate) struct QueueSetup {
    pub(crate) size: Option<u16>,
    pub(crate) addresses: Option<RingAddresses>,
    /// The position in the available ring to start from.
    pub(crate) base: u16,
    pub(crate) kick: Option<Arc<File>>,
    pub(crate) call: Option<Arc<File>>,
    /// It is signalled as soon as the ring runs, whatever is completed.
    pub(crate) call_due: bool,
    pub(crate) error: Option<Arc<File>>,
    pub(crate) enabled: bool,
    /// The ring failed; it takes a stop by the front-end before it may run again.
    pub(crate) broken: bool,
}

/// A queue that may run now.
pub(crate) struct Runnable<'a> {
    pub(crate) size: u16,
    pub(crate) addresses: RingAddresses,
    pub(crate) kick: &'a Arc<File>,
}

impl QueueSetup {
    /// What is needed to run the ring, once all of it is known and the front-end wants it to run.
    ///
    /// vhost-user, "Ring states": a ring starts with the first kick. Its kick descriptor comes last
    /// of all that it needs, and after a reconnect chains may be waiting that nobody will kick
    /// again, so the descriptor's arrival counts as the kick.
    pub(crate) fn runnable(&self) -> Option<Runnable<'_>> {
        if !self.enabled || self.broken {
            return None;
        }
        let kick = self.kick.as_ref()?;
        Some(Runnable { size: self.size?, addresses: self.addresses?, kick })
    }

    /// The front-end stopped the ring (`GET_VRING_BASE`): it hands over new descriptors when it
    /// starts it again.
    pub(crate) fn stop(&mut self) -> u16 {
        self.kick = None;
        self.call = None;
        self.broken = false;
        self.base
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
