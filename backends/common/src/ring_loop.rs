//! What the thread of rings does: it has them served, looks at those that are polled, sleeps, and does
//! as it is ordered.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use nix::poll::PollFd;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::device::Worker;
use crate::error::Because;
use crate::event;
use crate::preemption::Preemption;
use crate::ring_thread::{NewRing, Stopped, Stops};
use crate::served_ring::ServedRing;
use crate::vring::VringError;
use crate::wake_ups::{Named, RINGS, WakeUps};

/// How often a ring that is polled is looked at between two looks at the clock.
const LOOKS: u32 = 16;

/// How many chains, and rounds, may be served without a look at what happens to other rings. A look is a
/// system call, which a round of a few chains is not worth.
const CHAINS: u32 = 64;
const ROUNDS: u32 = 8;

/// What the session wants of the thread.
pub(crate) enum Order {
    Serve(Box<NewRing>),
    Stop { index: u16, stops: Stops, stopped: Sender<Stopped> },
}

/// Says that there are orders: by the flag while the thread is awake, by the descriptor while it sleeps.
pub(crate) struct Bell {
    rung: AtomicBool,
    wake: EventFd,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { rung: false.into(), wake })
    }

    /// Says so, after an order was given.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        // It can only fail when its counter is full, and then the loop is awake.
        let _full = self.wake.write(1);
    }

    fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    /// Silences it, before the orders are taken.
    fn silence(&self) {
        // What was ordered before it rang is there to be taken.
        self.rung.swap(false, Ordering::AcqRel);
        // It may have been silent.
        let _silent = self.wake.read();
    }
}

/// A ring, and who serves it.
struct Seat {
    ring: ServedRing,
    /// Until it fails.
    worker: Option<Box<dyn Worker>>,
    /// Signalled when it does.
    error: Option<Arc<File>>,
}

/// The ring of this index can't be served any more.
struct Failure(u16, VringError);

/// The loop.
pub(crate) struct RingLoop {
    orders: Receiver<Order>,
    bell: Arc<Bell>,
    wake_ups: WakeUps,
    /// In place: the fewer pages a thread needs to wake up, the sooner it is.
    seats: ArrayVec<Seat, RINGS>,
    /// Since things that happen were looked at last: rounds, and chains that were served in them.
    rounds: u32,
    chains: u32,
    preemption: Preemption,
}

/// The rings of one round.
type Round<'seat> = ArrayVec<&'seat mut ServedRing, RINGS>;

impl RingLoop {
    pub(crate) fn new(orders: Receiver<Order>, bell: Arc<Bell>) -> io::Result<Self> {
        let wake_ups = WakeUps::new(bell.wake.as_fd())?;
        let (seats, preemption) = (ArrayVec::new(), Preemption::new());
        Ok(Self { orders, bell, wake_ups, seats, rounds: 0, chains: 0, preemption })
    }

    /// Runs until nobody is left to give orders.
    pub(crate) fn run(&mut self) {
        let mut ordered = true;
        while !ordered || self.follow_orders() {
            let woken = self.round().unwrap_or_else(|failure| {
                self.fail(failure);
                false
            });
            ordered = woken || self.bell.is_rung();
        }
    }

    /// Does what was ordered. Whether there may be more orders.
    fn follow_orders(&mut self) -> bool {
        self.bell.silence();
        loop {
            match self.orders.try_recv() {
                Ok(Order::Serve(ring)) => self.serve(*ring),
                Ok(Order::Stop { index, stops, stopped }) => self.stop(index, stops, &stopped),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn serve(&mut self, new: NewRing) {
        let NewRing { vring, worker, kick, signals } = new;
        let mut ring = ServedRing::new(vring);
        let (index, watched) = (ring.index(), ring.watch(kick, self.wake_ups.epoll()));
        let seat = Seat { ring, worker: Some(worker), error: signals.error };
        if self.seats.try_push(seat).is_err() {
            tracing::error!("vring {index} has no place on its thread");
        }
        if let Err(error) = watched {
            self.fail(Failure(index, error));
        }
    }

    fn stop(&mut self, index: u16, stops: Stops, stopped: &Sender<Stopped>) {
        let Some(place) = self.seats.iter().position(|seat| seat.ring.index() == index) else {
            return;
        };
        let Seat { mut ring, worker, error } = self.seats.remove(place);
        ring.rest(self.wake_ups.epoll());
        let mut failed = worker.is_none();
        if let Some(mut worker) = worker
            && let Err(failure) = ring.end(worker.as_mut(), stops == Stops::Leaving)
        {
            failed = true;
            complain(&mut ring, failure, error.as_deref());
        }
        // Whoever wanted it may be gone.
        let _gone = stopped.send(Stopped { vring: ring.into_vring(), failed });
    }

    /// Serves a ring no more. It stays, for who stops it.
    fn fail(&mut self, Failure(index, failure): Failure) {
        let Some(seat) = self.seats.iter_mut().find(|seat| seat.ring.index() == index) else {
            return;
        };
        seat.worker = None;
        seat.ring.rest(self.wake_ups.epoll());
        complain(&mut seat.ring, failure, seat.error.as_deref());
    }

    /// Has served who is due, and sleeps if nobody is any more. Whether the bell rings.
    fn round(&mut self) -> Result<bool, Failure> {
        let Self { bell, wake_ups, seats, rounds, chains, preemption, .. } = self;
        let mut named = Named::new();
        let mut rings = Round::new();
        let mut turn = false;
        for (place, Seat { ring, worker, .. }) in seats.iter_mut().enumerate() {
            let Some(worker) = worker else { continue };
            if ring.is_due() || ring.names() {
                let wait = ring.serve(worker.as_mut(), wake_ups.epoll());
                let wait = wait.map_err(|error| Failure(ring.index(), error))?;
                let fds = wait.fds.into_iter().flatten();
                named.extend(fds.map(|(fd, events)| PollFd::new(fd, events)));
                *chains = chains.saturating_add(ring.vring().taken_in_round().into());
                preemption.served(place, ring.vring().carried_in_round());
                turn |= wait.again;
            }
            rings.push(ring);
        }
        if rings.iter().any(|ring| ring.is_polled()) {
            match is_due(&rings) {
                true => each(&mut rings, ServedRing::look)?,
                false => look(&mut rings, wake_ups, bell)?,
            }
        }
        let timeout = if is_due(&rings) || bell.is_rung() {
            *rounds = rounds.saturating_add(1);
            let others = rings.len() > 1 && (turn || *rounds >= ROUNDS || *chains >= CHAINS);
            if !others {
                return Ok(false);
            }
            Some(Duration::ZERO)
        } else {
            let deadline = rings.iter().filter_map(|ring| ring.deadline()).min();
            deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
        };
        (*rounds, *chains) = (0, 0);
        let rung = sleep(&mut rings, wake_ups, named, timeout)?;
        // A look is no sleep.
        if timeout != Some(Duration::ZERO) {
            preemption.woken(rings.len() > 1);
        }
        Ok(rung)
    }
}

/// Says that a ring can't be served any more.
fn complain(ring: &mut ServedRing, failure: VringError, error: Option<&File>) {
    // For what it completed before that, as far as the ring can still be read.
    let _broken = ring.call_if_wanted();
    // Whatever went wrong went wrong for this.
    let failure = ring.vring().check_memory().err().unwrap_or(failure);
    tracing::error!("vring {} stopped: {}", ring.index(), Because(&failure));
    error.into_iter().for_each(event::signal);
}

fn is_due(rings: &Round<'_>) -> bool {
    rings.iter().any(|ring| ring.is_due())
}

/// Looks at the rings that are polled until there is something to do, or they were looked at for long
/// enough.
fn look(rings: &mut Round<'_>, wake_ups: &WakeUps, bell: &Bell) -> Result<(), Failure> {
    loop {
        for _ in 0..LOOKS {
            each(rings, ServedRing::look)?;
            if is_due(rings) || bell.is_rung() {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        if rings.len() > 1 {
            // The bell is heard without.
            let _bell = sleep(rings, wake_ups, Named::new(), Some(Duration::ZERO))?;
        }
        each(rings, ServedRing::look_at_clock)?;
        if !rings.iter().any(|ring| ring.is_polled()) {
            return Ok(());
        }
    }
}

fn each(
    rings: &mut Round<'_>,
    act: impl Fn(&mut ServedRing) -> Result<(), VringError>,
) -> Result<(), Failure> {
    rings.iter_mut().try_for_each(|ring| act(ring).map_err(|error| Failure(ring.index(), error)))
}

/// Sleeps, and finds out who is due then. Whether the bell rings.
fn sleep(
    rings: &mut Round<'_>,
    wake_ups: &WakeUps,
    named: Named<'_>,
    timeout: Option<Duration>,
) -> Result<bool, Failure> {
    let mut told = Ok(());
    let slept = wake_ups.sleep(named, timeout, |event| {
        let happened = each(rings, |ring| ring.happened(event, wake_ups.epoll()));
        told = std::mem::replace(&mut told, Ok(())).and(happened);
    });
    told?;
    rings.iter_mut().for_each(|ring| ring.woken());
    slept.map_err(|error| {
        // Which of them it is about can't be said; one after the other finds out.
        let index = rings.first().map_or(0, |ring| ring.index());
        Failure(index, VringError::Sleep(error))
    })
}

#[cfg(test)]
#[path = "ring_loop_test.rs"]
mod tests;
