//! What a port's two rings and its own thread have in common: whoever has something to do carries it
//! as far as it goes, one at a time.
//!
//! While a ring runs, its thread does all that its direction takes, so that a byte wakes no thread but
//! the one that it is for. The line's thread sees to who comes and leaves, and stands in for rings that
//! do not run. All sleep unless there is something to move. Of their own in memory there are the history
//! and one buffer of keys.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::carrier::{Carrier, Watcher, Watches};
use crate::outlet::Outlet;

/// How long what the guest printed last may take to get out when the process ends.
const FLUSH: Duration = Duration::from_secs(1);
const STACK: usize = 256 * 1024;

/// A port's bytes on their way, both ways.
pub(crate) struct Line {
    /// Never held while anybody is waited for; a write to a file may have to wait for its disk.
    carrier: Mutex<Carrier>,
    /// Held while waiting for the carrier, so that who gives it back does not take it again first.
    turn: Mutex<()>,
    pub(crate) watches: Arc<Watches>,
    /// Whether a ring's thread does its direction's work.
    pub(crate) receiving: AtomicBool,
    pub(crate) transmitting: AtomicBool,
    stop: AtomicBool,
    /// To make the line's thread look again at what it has to do.
    wake: EventFd,
}

impl Line {
    pub(crate) fn new(
        outlet: Box<dyn Outlet>,
        watcher: Box<dyn Watcher>,
        replay: bool,
    ) -> nix::Result<Self> {
        let watches = Arc::new(Watches::new()?);
        let carrier = Carrier::new(outlet, watcher, Arc::clone(&watches), replay);
        Ok(Self {
            carrier: Mutex::new(carrier),
            turn: Mutex::default(),
            watches,
            receiving: AtomicBool::new(false),
            transmitting: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        })
    }

    /// What carries the bytes, for one who comes at a time, in the order in which they come.
    pub(crate) fn carrier(&self) -> MutexGuard<'_, Carrier> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.carrier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the line's thread.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let line = Arc::clone(self);
        Builder::new().name("line".into()).stack_size(STACK).spawn(move || line.run())
    }

    /// Asks the line's thread to let out what the guest printed last, and to end. No ring runs any more.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        // A full counter wakes as well as any.
        let _full = self.wake.write(1);
    }

    fn run(&self) {
        loop {
            let takes_keys = {
                let mut carrier = self.carrier();
                carrier.look();
                let receiving = self.receiving.load(Ordering::Acquire);
                if !receiving {
                    carrier.read_keys();
                }
                carrier.settle();
                !receiving && carrier.has_room_for_keys()
            };
            if self.stop.load(Ordering::Acquire) {
                return self.flush();
            }
            if self.sleep(takes_keys).is_err() {
                return;
            }
        }
    }

    /// Waits for something to do.
    fn sleep(&self, takes_keys: bool) -> Result<(), Errno> {
        let watches = &self.watches;
        let mut fds = [
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            watches.events.poll_if(true),
            watches.hang_ups.poll_if(true),
            watches.input.poll_if(takes_keys),
            watches.full.poll_if(!self.transmitting.load(Ordering::Acquire)),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        // Empty, unless that was what happened.
        let _empty = self.wake.read();
        Ok(())
    }

    fn flush(&self) {
        let deadline = Instant::now() + FLUSH;
        while self.carrier().is_awaited() {
            if Instant::now() >= deadline {
                tracing::warn!("the console's last output found no reader");
                return;
            }
            // It fails only when interrupted, and then the deadline still stands.
            let _woken = poll(&mut [self.watches.full.poll_if(true)], PollTimeout::from(100_u8));
            self.carrier().settle();
        }
    }
}

/// A ring's thread does its direction's work, until this is dropped.
pub(crate) struct Served {
    line: Arc<Line>,
    by_ring: fn(&Line) -> &AtomicBool,
}

impl Served {
    pub(crate) fn new(line: &Arc<Line>, by_ring: fn(&Line) -> &AtomicBool) -> Self {
        by_ring(line).store(true, Ordering::Release);
        Self { line: Arc::clone(line), by_ring }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        (self.by_ring)(&self.line).store(false, Ordering::Release);
        self.line.wake();
    }
}
