//! The thread that serves one started ring: the loop, its wake-ups, starting and stopping it.
//! What serving means is the device's.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tap::TapFallible;

use crate::device::Worker;
use crate::error::Because;
use crate::event;
use crate::polling::Polling;
use crate::vring::{Vring, VringError};
use crate::wake_ups::WakeUps;

/// Small, because a device process has many such threads and its memory is counted. A request's
/// buffers are the guest's, so the loop needs little.
const STACK: usize = 256 * 1024;

/// How often a ring that is polled is looked at between two looks at the clock.
const LOOKS: u32 = 16;

/// How long a ring that stops may take before the events that it signals are looked at.
const PATIENCE: Duration = Duration::from_secs(1);

/// Ends the loop: the flag between two rounds, the descriptor while it sleeps.
struct Stop {
    asked: AtomicBool,
    /// Whether that is as in [`Stops::Leaving`].
    leaving: AtomicBool,
    wake: EventFd,
}

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

/// A ring that is being served.
pub(crate) struct RingThread {
    stop: Arc<Stop>,
    thread: JoinHandle<Stopped>,
    /// Never has anything; its other end goes with the thread.
    ended: Receiver<Infallible>,
    signals: Signals,
}

/// A ring that was served.
pub(crate) struct Stopped {
    pub(crate) vring: Vring,
    /// It stopped by itself, because it could not go on.
    pub(crate) failed: bool,
}

impl RingThread {
    /// Serves `vring` until it is stopped or fails. A failure is logged, and signalled.
    pub(crate) fn start(
        mut vring: Vring,
        mut worker: Box<dyn Worker>,
        kick: Arc<File>,
        signals: Signals,
    ) -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let stop = Arc::new(Stop { asked: false.into(), leaving: false.into(), wake });
        let seen_by_loop = Arc::clone(&stop);
        let name = format!("vring{}", vring.index());
        let (alive, ended) = mpsc::channel();
        let error = signals.error.clone();
        let serve = move || {
            let _alive = alive;
            let failed = serve_until_stopped(&mut vring, worker.as_mut(), &kick, &seen_by_loop)
                // Whatever went wrong went wrong for this.
                .map_err(|failure| vring.check_memory().err().unwrap_or(failure))
                .tap_err(|failure| {
                    tracing::error!("vring {} stopped: {}", vring.index(), Because(failure));
                    error.iter().for_each(|error| event::signal(error));
                })
                .is_err();
            Stopped { vring, failed }
        };
        let thread = thread::Builder::new().name(name).stack_size(STACK).spawn(serve)?;
        Ok(Self { stop, thread, ended, signals })
    }

    /// Lets the loop finish what is in flight and takes the ring back.
    pub(crate) fn stop(self, stops: Stops) -> Stopped {
        self.stop.leaving.store(stops == Stops::Leaving, Ordering::Release);
        self.stop.asked.store(true, Ordering::Release);
        // It can only fail when its counter is full, and then the loop is awake.
        let _full = self.stop.wake.write(1);
        while self.ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let Signals { call, error } = &self.signals;
            call.iter().chain(error).for_each(|event| event::make_room(event));
        }
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn serve_until_stopped(
    vring: &mut Vring,
    worker: &mut dyn Worker,
    kick: &File,
    stop: &Stop,
) -> Result<(), VringError> {
    let wake_ups = WakeUps::new(kick, stop.wake.as_fd())?;
    let mut polling = Polling::default();
    while !stop.asked.load(Ordering::Acquire) {
        vring.begin_round()?;
        let wait = worker.serve(vring)?;
        vring.call_if_wanted()?;
        if wait.again {
            continue;
        }
        // Where nobody polls, the clock is not read either.
        let limit = if wait.kick { wait.polling } else { Duration::ZERO };
        let idle = (!limit.is_zero()).then(Instant::now);
        let window = polling.window(limit);
        if let Some(idle) = idle.filter(|_| !window.is_zero()) {
            if poll_ring(vring, idle, window, stop)? {
                polling.met(idle.elapsed(), limit);
                continue;
            }
            polling.missed();
        }
        let more = wait.kick && vring.want_kicks(wait.ahead)?;
        vring.check_memory()?;
        if more {
            continue;
        }
        wake_ups.sleep(&wait)?;
        if let Some(idle) = idle.filter(|_| window.is_zero()) {
            polling.woken(idle.elapsed(), limit);
        }
    }
    finish_resubmitted(vring, worker)?;
    vring.set_leaving(stop.leaving.load(Ordering::Acquire));
    worker.drain(vring)?;
    vring.call_if_wanted()?;
    if vring.in_flight() > 0 {
        tracing::error!("vring {} lost {} chains", vring.index(), vring.in_flight());
    }
    Ok(())
}

/// Looks at the ring for as long as `window`. Whether there is something to do. The driver is not
/// asked to kick meanwhile.
fn poll_ring(
    vring: &mut Vring,
    since: Instant,
    window: Duration,
    stop: &Stop,
) -> Result<bool, VringError> {
    loop {
        for _ in 0..LOOKS {
            if vring.has_next()? || stop.asked.load(Ordering::Acquire) {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        if since.elapsed() >= window {
            return Ok(false);
        }
    }
}

/// Does what a process before this one left in flight, as far as that can be done now: a ring that
/// stops right after its start would else stop with it in flight (vhost-user, `GET_VRING_BASE`).
fn finish_resubmitted(vring: &mut Vring, worker: &mut dyn Worker) -> Result<(), VringError> {
    let mut left = vring.resubmitted();
    while left > 0 {
        vring.begin_round()?;
        worker.serve(vring)?;
        let now = vring.resubmitted();
        if now >= left {
            break;
        }
        left = now;
    }
    vring.check_memory()
}

#[cfg(test)]
#[path = "ring_thread_test.rs"]
mod tests;
