//! A thread that serves rings, seen from the session: rings that it is given, and takes back. What the
//! thread does is in its loop.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};

use crate::device::Worker;
use crate::event::{self, PATIENCE};
use crate::ring_loop::{Bell, Order, RingLoop};
use crate::vring::Vring;

/// Small, because a device process has many such threads and its memory is counted. A request's
/// buffers are the guest's, so the loop needs little.
const STACK: usize = 256 * 1024;

/// What becomes of what is in flight when a ring stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stops {
    /// All of it is done, or fails.
    Done,
    /// What can't be done yet stays in the record of what is in flight, where there is one: whoever
    /// serves the ring next has it, too.
    Leaving,
}

/// What the thread of a ring signals: the ring's call, and that it can't go on.
#[derive(Clone, Default)]
pub(crate) struct Signals {
    pub(crate) call: Option<Arc<File>>,
    pub(crate) error: Option<Arc<File>>,
}

impl Signals {
    /// Makes room in them, where somebody may wait to signal them.
    pub(crate) fn make_room(&self) {
        self.call.iter().chain(&self.error).for_each(|event| event::make_room(event));
    }
}

/// A ring and who is to serve it.
pub(crate) struct NewRing {
    pub(crate) vring: Vring,
    pub(crate) worker: Box<dyn Worker>,
    pub(crate) kick: Arc<File>,
    pub(crate) signals: Signals,
}

/// A ring that was served.
pub(crate) struct Stopped {
    pub(crate) vring: Vring,
    /// It stopped by itself, because it could not go on.
    pub(crate) failed: bool,
}

/// A thread that serves rings.
pub(crate) struct RingThread {
    orders: Sender<Order>,
    bell: Arc<Bell>,
    thread: JoinHandle<()>,
    /// How many rings it has.
    rings: usize,
}

impl RingThread {
    /// Serves `ring`, and those that are added, until they are stopped or fail, on a thread called `name`.
    /// A failure is logged, and signalled.
    pub(crate) fn start(name: String, ring: NewRing) -> io::Result<Self> {
        let bell = Arc::new(Bell::new()?);
        let (orders, taken) = mpsc::channel();
        let mut ring_loop = RingLoop::new(taken, Arc::clone(&bell))?;
        let thread =
            thread::Builder::new().name(name).stack_size(STACK).spawn(move || ring_loop.run())?;
        let mut ring_thread = Self { orders, bell, thread, rings: 0 };
        ring_thread.add(ring);
        Ok(ring_thread)
    }

    /// Serves `ring` as well.
    pub(crate) fn add(&mut self, ring: NewRing) {
        self.rings = self.rings.saturating_add(1);
        self.order(Order::Serve(Box::new(ring)));
    }

    /// Lets the loop finish what is in flight in the ring `index` and takes it back, if it has it. That
    /// takes a while where a front-end fills an event of its own and has it block: `make_room` then makes
    /// room in all that may be signalled, by this thread or by one that this one waits for.
    pub(crate) fn stop(
        &mut self,
        index: u16,
        stops: Stops,
        make_room: impl Fn(),
    ) -> Option<Stopped> {
        let (stopped, taken) = mpsc::channel();
        self.order(Order::Stop { index, stops, stopped });
        loop {
            match taken.recv_timeout(PATIENCE) {
                Ok(stopped) => {
                    self.rings = self.rings.saturating_sub(1);
                    return Some(stopped);
                }
                // It has no such ring, or has panicked.
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => make_room(),
            }
        }
    }

    /// Whether it has no ring, or has panicked.
    pub(crate) fn is_idle(&self) -> bool {
        self.rings == 0 || self.thread.is_finished()
    }

    /// Ends the thread, which is idle.
    pub(crate) fn end(self) {
        let Self { orders, bell, thread, .. } = self;
        drop(orders);
        bell.ring();
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    fn order(&self, order: Order) {
        // It takes orders as long as it runs, and it has not ended unless it panicked, which `stop`
        // finds out.
        let _panicked = self.orders.send(order);
        self.bell.ring();
    }
}

#[cfg(test)]
#[path = "ring_thread_test.rs"]
mod tests;
