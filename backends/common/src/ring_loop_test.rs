//! What two rings on one thread are to each other: nothing.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::event;
use crate::ring_thread::{NewRing, RingThread, Signals, Stops};
use crate::test_ring::{INDEX, TestRing, USED};
use crate::test_worker::{LONG, Next, Script, eventfd};
use crate::vring::{RingSetup, Vring};

/// The index of the second one.
const SECOND: u16 = INDEX + 1;

/// Two rings that are served by one thread.
struct Rig {
    thread: RingThread,
    first: Script,
    second: Script,
    /// The second one's.
    error: Arc<File>,
    rings: [TestRing; 2],
}

impl Rig {
    /// Starts both. Each has served once then.
    fn start(first_next: Next, second_next: Next) -> Self {
        let (first, first_worker) = Script::new();
        let (second, second_worker) = Script::new();
        let (rings, error) = ([TestRing::new(), TestRing::new()], eventfd());
        let [one, other] = &rings;
        let setup = RingSetup { index: SECOND, ..other.setup() };
        let mut thread = {
            let (vring, kick) = (one.vring(), Arc::clone(&first.kick));
            let signals = Signals::default();
            let ring = NewRing { vring, worker: first_worker, kick, signals };
            RingThread::start("vrings".into(), ring).unwrap()
        };
        first.serves_and(first_next);
        thread.add(NewRing {
            vring: Vring::new(setup, &other.memory).unwrap(),
            worker: second_worker,
            kick: Arc::clone(&second.kick),
            signals: Signals { error: Some(Arc::clone(&error)), ..Signals::default() },
        });
        second.serves_and(second_next);
        Self { thread, first, second, error, rings }
    }

    /// Stops both. How often each has served besides.
    fn stop(mut self) -> [usize; 2] {
        drop((self.first.next, self.second.next));
        for index in [INDEX, SECOND] {
            assert!(self.thread.stop(index, Stops::Done, || ()).is_some());
        }
        assert!(self.thread.is_idle());
        self.thread.end();
        [self.first.serves, self.second.serves].map(|serves| serves.iter().count())
    }
}

#[test]
fn what_happens_to_one_has_not_the_other_served() {
    let rig = Rig::start(Next::Kick, Next::Lasting);
    for _ in 0..3 {
        event::signal(&rig.first.kick);
        rig.first.serves_and(Next::Kick);
        event::signal(&rig.second.event);
        rig.second.serves_and(Next::Lasting);
    }
    assert_eq!(rig.stop(), [0, 0]);
}

#[test]
fn one_stops_and_the_other_goes_on() {
    for (stopped, left) in [(INDEX, SECOND), (SECOND, INDEX)] {
        let mut rig = Rig::start(Next::Kick, Next::Kick);
        assert!(!rig.thread.stop(stopped, Stops::Done, || ()).unwrap().failed);
        assert!(rig.thread.stop(stopped, Stops::Done, || ()).is_none());
        let rest = if left == INDEX { &rig.first } else { &rig.second };
        event::signal(&rest.kick);
        rest.serves_and(Next::Kick);
        assert!(!rig.thread.is_idle());
        assert!(!rig.thread.stop(left, Stops::Done, || ()).unwrap().failed);
        rig.thread.end();
    }
}

#[test]
fn one_fails_and_the_other_goes_on() {
    let mut rig = Rig::start(Next::Kick, Next::Fail);
    // It is nobody's any more.
    assert!(rig.second.serves.recv_timeout(LONG).is_err());
    let mut error = [PollFd::new(rig.error.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut error, PollTimeout::try_from(LONG).unwrap()), Ok(1));
    event::signal(&rig.second.kick);
    event::signal(&rig.first.kick);
    rig.first.serves_and(Next::Kick);
    assert!(rig.thread.stop(SECOND, Stops::Done, || ()).unwrap().failed);
    assert!(!rig.thread.stop(INDEX, Stops::Done, || ()).unwrap().failed);
    rig.thread.end();
}

#[test]
fn one_that_always_has_more_to_do_keeps_the_other_from_nothing() {
    let mut rig = Rig::start(Next::Kick, Next::Again);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (first, second, over) = (&rig.first, &mut rig.second, &over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                second.serves_and(Next::Again);
            }
            second.serves_and(Next::Kick);
        });
        for _ in 0..3 {
            event::signal(&first.kick);
            first.serves_and(Next::Kick);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(rig.stop(), [0, 0]);
}

#[test]
fn one_that_gives_others_their_turn_is_served_behind_them() {
    let rig = Rig::start(Next::Kick, Next::Again);
    for _ in 0..3 {
        rig.second.serves.recv_timeout(LONG).unwrap();
        event::signal(&rig.first.kick);
        rig.second.next.send(Next::Again).unwrap();
        // The second one is told no more before this.
        rig.first.serves_and(Next::Kick);
    }
    rig.second.serves_and(Next::Kick);
    assert_eq!(rig.stop(), [0, 0]);
}

#[test]
fn one_is_looked_at_though_the_other_always_has_more_to_do() {
    let mut rig = Rig::start(Next::Kick, Next::Look);
    for _ in 0..8 {
        event::signal(&rig.second.kick);
        rig.second.serves_and(Next::Look);
    }
    event::signal(&rig.first.kick);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (first, second, over) = (&mut rig.first, &rig.second, &over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                first.serves_and(Next::Again);
            }
            first.serves_and(Next::Kick);
        });
        // No kick comes for it where none is asked for, as while it is looked at.
        let ring = &mut rig.rings[1];
        ring.make_available(0);
        fence(Ordering::SeqCst);
        if ring.load(USED) == 0 {
            event::signal(&second.kick);
        }
        // In vain, the other would go on for ever.
        let served = second.serves.recv_timeout(LONG);
        second.next.send(Next::Kick).unwrap();
        over.store(true, Ordering::Relaxed);
        served.unwrap();
    });
    assert_eq!(rig.stop(), [0, 0]);
}

#[test]
fn one_that_is_looked_at_keeps_the_other_from_nothing() {
    let rig = Rig::start(Next::Kick, Next::Look);
    // Soon enough, and often enough, for it to be looked at.
    for _ in 0..8 {
        event::signal(&rig.second.kick);
        rig.second.serves_and(Next::Look);
    }
    for _ in 0..3 {
        event::signal(&rig.first.kick);
        rig.first.serves_and(Next::Kick);
    }
    assert_eq!(rig.stop(), [0, 0]);
}

#[test]
fn one_that_names_what_it_waits_for_hears_of_it_after_the_other_had_more_to_do() {
    let rig = Rig::start(Next::Kick, Next::Named);
    event::signal(&rig.first.kick);
    rig.first.serves_and(Next::Again);
    rig.second.serves_and(Next::Named);
    // In between, nobody has slept.
    rig.first.serves_and(Next::Kick);
    rig.second.serves_and(Next::Named);
    event::signal(&rig.second.event);
    rig.second.serves_and(Next::Kick);
    assert_eq!(rig.stop(), [0, 0]);
}
