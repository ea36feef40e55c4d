use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{RingThread, Signals, Stops};
use crate::device::{Wait, Worker};
use crate::event;
use crate::test_ring::TestRing;
use crate::vring::{RingSetup, Vring, VringError};

/// Says each time that it serves, and asks what to wait for.
struct Scripted {
    serves: Sender<()>,
    next: Receiver<Next>,
    event: File,
}

#[derive(Clone, Copy)]
enum Next {
    Kick,
    /// Of its own.
    Event,
}

impl Worker for Scripted {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        while let Some(chain) = vring.next()? {
            vring.complete(chain, 0)?;
        }
        event::take(&self.event).map_err(VringError::Sleep)?;
        // Nobody listens any more when the test is over.
        let _over = self.serves.send(());
        Ok(match self.next.recv().unwrap_or(Next::Kick) {
            Next::Kick => Wait::kick(),
            Next::Event => Wait::no_kick().on(self.event.as_fd(), PollFlags::POLLIN),
        })
    }
}

fn eventfd() -> File {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).unwrap();
    OwnedFd::from(event).into()
}

/// A ring that is served, and its driver's side.
struct Rig {
    thread: RingThread,
    kick: File,
    event: File,
    serves: Receiver<()>,
    next: Sender<Next>,
}

impl Rig {
    fn start(ring: &TestRing) -> Self {
        let (kick, event) = (eventfd(), eventfd());
        let ((serves, served), (next, wanted)) = (mpsc::channel(), mpsc::channel());
        let worker = Scripted { serves, next: wanted, event: event.try_clone().unwrap() };
        let theirs = Arc::new(kick.try_clone().unwrap());
        let thread =
            RingThread::start(ring.vring(), Box::new(worker), theirs, Signals::default()).unwrap();
        Self { thread, kick, event, serves: served, next }
    }

    /// What it waits for when it has served once more.
    fn serves_and_waits_for(&self, next: Next) {
        self.serves.recv().unwrap();
        self.next.send(next).unwrap();
    }

    /// Stops it. How often it has served besides.
    fn stop(self) -> usize {
        drop(self.next);
        assert!(!self.thread.stop(Stops::Done).failed);
        self.serves.iter().count()
    }
}

#[test]
fn a_kick_while_it_serves_has_it_serve_again_once() {
    let rig = Rig::start(&TestRing::new());
    rig.serves.recv().unwrap();
    event::signal(&rig.kick);
    event::signal(&rig.kick);
    rig.next.send(Next::Kick).unwrap();
    rig.serves_and_waits_for(Next::Kick);
    assert_eq!(rig.stop(), 0);
}

#[test]
fn kicks_wake_a_worker_that_wants_none_when_it_waits_for_them_again() {
    let rig = Rig::start(&TestRing::new());
    rig.serves_and_waits_for(Next::Event);
    event::signal(&rig.kick);
    event::signal(&rig.event);
    rig.serves_and_waits_for(Next::Event);
    event::signal(&rig.kick);
    event::signal(&rig.event);
    // Had the kicks woken it meanwhile, it would wait for this the third time, and not see the last.
    rig.serves_and_waits_for(Next::Kick);
    rig.serves_and_waits_for(Next::Kick);
    assert_eq!(rig.stop(), 0);
}

#[test]
fn a_ring_with_a_kick_that_nobody_can_wait_for_stops_and_signals_its_error() {
    let ring = TestRing::new();
    let error = eventfd();
    let ((serves, served), (_next, wanted)) = (mpsc::channel(), mpsc::channel());
    let worker = Scripted { serves, next: wanted, event: eventfd() };
    let kick = Arc::new(tempfile::tempfile().unwrap());
    let theirs = Some(Arc::new(error.try_clone().unwrap()));
    let signals = Signals { error: theirs, ..Signals::default() };
    let thread = RingThread::start(ring.vring(), Box::new(worker), kick, signals).unwrap();
    // It ends by itself.
    assert_eq!(served.iter().count(), 0);
    assert!(thread.stop(Stops::Done).failed);
    assert!(nix::unistd::read(&error, &mut [0; 8]).is_ok());
}

#[test]
fn a_call_that_a_front_end_fills_and_makes_block_keeps_no_ring_from_stopping() {
    let mut ring = TestRing::new();
    let call = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
    call.write(u64::MAX - 1).unwrap();
    let call = Arc::new(File::from(OwnedFd::from(call)));
    let setup = RingSetup { call: Some(Arc::clone(&call)), ..ring.setup() };
    ring.make_available(0);
    let vring = Vring::new(setup, &ring.memory).unwrap();
    let ((serves, served), (next, wanted)) = (mpsc::channel(), mpsc::channel());
    let worker = Scripted { serves, next: wanted, event: eventfd() };
    let signals = Signals { call: Some(call), error: None };
    let thread = RingThread::start(vring, Box::new(worker), Arc::new(eventfd()), signals).unwrap();
    served.recv().unwrap();
    next.send(Next::Kick).unwrap();
    let (stopped, is_stopped) = mpsc::channel();
    std::thread::spawn(move || stopped.send(thread.stop(Stops::Done).failed));
    let failed = is_stopped.recv_timeout(Duration::from_secs(20)).expect("it waits for ever");
    assert!(!failed);
}
