use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{NewRing, RingThread, Signals, Stops};
use crate::event;
use crate::test_ring::{INDEX, TestRing};
use crate::test_worker::{LONG, Next, Script, Scripted, eventfd};
use crate::vring::{RingSetup, Vring};

fn start(vring: Vring, worker: Box<Scripted>, kick: Arc<File>, signals: Signals) -> RingThread {
    RingThread::start("vring".into(), NewRing { vring, worker, kick, signals }).unwrap()
}

/// Stops the only ring of a thread, and the thread. Whether the ring had failed.
fn stop(mut thread: RingThread) -> bool {
    let stopped = thread.stop(INDEX, Stops::Done, || ()).unwrap();
    assert!(thread.is_idle());
    thread.end();
    stopped.failed
}

/// A ring that is served, and its driver's side.
struct Rig {
    thread: RingThread,
    script: Script,
}

impl Rig {
    fn start(ring: &TestRing) -> Self {
        let (script, worker) = Script::new();
        let kick = Arc::clone(&script.kick);
        Self { thread: start(ring.vring(), worker, kick, Signals::default()), script }
    }

    /// Stops it. How often it has served besides.
    fn stop(self) -> usize {
        drop(self.script.next);
        assert!(!stop(self.thread));
        self.script.serves.iter().count()
    }
}

#[test]
fn a_kick_while_it_serves_has_it_serve_again_once() {
    let rig = Rig::start(&TestRing::new());
    rig.script.serves.recv().unwrap();
    event::signal(&rig.script.kick);
    event::signal(&rig.script.kick);
    rig.script.next.send(Next::Kick).unwrap();
    rig.script.serves_and(Next::Kick);
    assert_eq!(rig.stop(), 0);
}

#[test]
fn kicks_wake_a_worker_that_wants_none_when_it_waits_for_them_again() {
    for event in [Next::Named, Next::Lasting] {
        let rig = Rig::start(&TestRing::new());
        rig.script.serves_and(event);
        event::signal(&rig.script.kick);
        event::signal(&rig.script.event);
        rig.script.serves_and(event);
        event::signal(&rig.script.kick);
        event::signal(&rig.script.event);
        // Had the kicks had it served meanwhile, it would wait for its event the third time, and not see
        // the last.
        rig.script.serves_and(Next::Kick);
        rig.script.serves_and(Next::Kick);
        assert_eq!(rig.stop(), 0);
    }
}

#[test]
fn a_ring_with_a_kick_that_nobody_can_wait_for_stops_and_signals_its_error() {
    let ring = TestRing::new();
    let error = eventfd();
    let (script, worker) = Script::new();
    let kick = Arc::new(tempfile::tempfile().unwrap());
    let signals = Signals { error: Some(Arc::clone(&error)), ..Signals::default() };
    let thread = start(ring.vring(), worker, kick, signals);
    // Its worker is gone before anybody stops it.
    assert_eq!(script.serves.iter().count(), 0);
    assert!(stop(thread));
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
    let (script, worker) = Script::new();
    let signals = Signals { call: Some(call), error: None };
    let mut thread = start(vring, worker, eventfd(), signals.clone());
    script.serves_and(Next::Kick);
    let (stopped, is_stopped) = mpsc::channel();
    std::thread::spawn(move || {
        let _stopped = stopped.send(thread.stop(INDEX, Stops::Done, || signals.make_room()));
    });
    let ring = is_stopped.recv_timeout(LONG).expect("it waits for ever");
    assert!(!ring.unwrap().failed);
}
