use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags};

use super::{RingWatch, Woken};
use crate::device::Wait;
use crate::event;
use crate::test_worker::{LONG, eventfd};
use crate::vring::VringError;
use crate::wake_ups::{Named, WakeUps};

/// A descriptor as a front-end may send it, and its other end.
fn socket() -> (Arc<File>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Arc::new(event::accept(OwnedFd::from(ours).into()).unwrap()), theirs)
}

fn readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() > 0
}

/// What a thread sleeps on that has a ring.
struct Rig {
    wake_ups: WakeUps,
    watch: RingWatch,
}

impl Rig {
    fn new(kick: &Arc<File>) -> Self {
        let wake_ups = WakeUps::new(eventfd().as_fd()).unwrap();
        let watch = RingWatch::new(0, Arc::clone(kick), wake_ups.epoll()).unwrap();
        Self { wake_ups, watch }
    }

    /// Sleeps until something happens, at most so long. Why the ring is to be served then.
    fn sleep(&mut self, wait: &Wait<'_>, most: Duration) -> Result<Vec<Woken>, VringError> {
        self.watch.expect(wait, self.wake_ups.epoll())?;
        let Self { wake_ups, watch } = self;
        let mut woken = Vec::new();
        let happened = |event| woken.push(watch.happened(event, wake_ups.epoll()));
        wake_ups.sleep(Named::new(), Some(most), happened).unwrap();
        woken.into_iter().filter_map(Result::transpose).collect()
    }

    /// Whether the next sleep ends at once.
    fn pending(&self) -> bool {
        readable(&self.wake_ups.epoll().0)
    }
}

#[test]
fn every_kick_wakes_once_though_nobody_reads_it_back() {
    let kick = eventfd();
    let mut rig = Rig::new(&kick);
    for _ in 0..3 {
        assert!(!rig.pending());
        event::signal(&kick);
        event::signal(&kick);
        assert!(matches!(rig.sleep(&Wait::kick(), LONG).unwrap()[..], [Woken::Kick]));
        assert!(readable(&kick), "that would be a system call more");
    }
    assert!(!rig.pending());
}

#[test]
fn a_kick_that_is_not_waited_for_is_kept_and_wakes_nobody_again_and_again() {
    let kick = eventfd();
    let mut rig = Rig::new(&kick);
    event::signal(&kick);
    assert!(rig.sleep(&Wait::no_kick(), LONG).unwrap().is_empty());
    for _ in 0..3 {
        event::signal(&kick);
        assert!(!rig.pending());
    }
    let (begun, whole) = (Instant::now(), Duration::from_millis(20));
    assert!(rig.sleep(&Wait::no_kick(), whole).unwrap().is_empty());
    assert!(begun.elapsed() >= whole, "a kick ended it");
    assert!(matches!(rig.sleep(&Wait::kick(), LONG).unwrap()[..], [Woken::Kick]));
    assert!(!rig.pending());
}

#[test]
fn what_lasts_is_waited_for_while_it_is_wanted_and_as_long_as_it_is_there() {
    let (kick, (other, mut peer)) = (eventfd(), socket());
    let mut rig = Rig::new(&kick);
    let wait = Wait::kick().on_lasting(&other);
    assert!(rig.sleep(&wait, Duration::ZERO).unwrap().is_empty());
    peer.write_all(b"x").unwrap();
    for _ in 0..3 {
        assert!(matches!(rig.sleep(&wait, LONG).unwrap()[..], [Woken::Ready]));
    }
    event::signal(&kick);
    assert_eq!(rig.sleep(&wait, LONG).unwrap().len(), 2);
    // Not wanted it may wake once, and not again.
    assert!(rig.sleep(&Wait::kick(), LONG).unwrap().is_empty());
    assert!(!rig.pending());
    assert!(matches!(rig.sleep(&wait, LONG).unwrap()[..], [Woken::Ready]));
    // Another takes its place.
    let (another, _peer) = socket();
    assert!(rig.sleep(&Wait::kick().on_lasting(&another), Duration::ZERO).unwrap().is_empty());
    assert!(!rig.pending());
}

#[test]
fn rings_in_one_set_are_told_apart() {
    let (kick, other_kick, (other, mut peer)) = (eventfd(), eventfd(), socket());
    let mut rig = Rig::new(&kick);
    let epoll = rig.wake_ups.epoll();
    let mut second = RingWatch::new(1, Arc::clone(&other_kick), epoll).unwrap();
    second.expect(&Wait::kick().on_lasting(&other), epoll).unwrap();
    event::signal(&other_kick);
    peer.write_all(b"x").unwrap();
    assert!(rig.sleep(&Wait::kick(), LONG).unwrap().is_empty());
    event::signal(&kick);
    assert!(matches!(rig.sleep(&Wait::kick(), LONG).unwrap()[..], [Woken::Kick]));
    // One that has ended wakes nobody.
    second.end(rig.wake_ups.epoll());
    event::signal(&other_kick);
    assert!(!rig.pending());
}

#[test]
fn kicks_before_the_start_wake_once_and_those_after_do() {
    let kick = eventfd();
    event::signal(&kick);
    event::signal(&kick);
    let mut rig = Rig::new(&kick);
    assert!(matches!(rig.sleep(&Wait::kick(), LONG).unwrap()[..], [Woken::Kick]));
    assert!(!rig.pending());
    // From another descriptor of the same event, as a front-end's.
    event::signal(&kick.try_clone().unwrap());
    assert!(rig.pending());
}

#[test]
fn who_starts_on_a_kick_takes_no_other_rings_kick_away() {
    let kick = eventfd();
    let first = Rig::new(&kick);
    event::signal(&kick);
    let second = Rig::new(&kick);
    assert!(first.pending() && second.pending());
}

#[test]
fn two_rings_in_one_set_may_have_the_same_kick() {
    // As a hostile front-end may have it.
    let kick = eventfd();
    let mut rig = Rig::new(&kick);
    let theirs = Arc::new(kick.try_clone().unwrap());
    let mut second = RingWatch::new(1, theirs, rig.wake_ups.epoll()).unwrap();
    event::signal(&kick);
    let mut woken = 0;
    let Rig { wake_ups, watch } = &mut rig;
    let happened = |event| {
        for watch in [&mut *watch, &mut second] {
            woken += usize::from(watch.happened(event, wake_ups.epoll()).unwrap().is_some());
        }
    };
    wake_ups.sleep(Named::new(), Some(LONG), happened).unwrap();
    assert_eq!(woken, 2);
}

#[test]
fn what_only_passes_bytes_kicks_too_and_never_fills_up() {
    let (kick, peer) = socket();
    peer.set_nonblocking(true).unwrap();
    let mut rig = Rig::new(&kick);
    for _ in 0..1000 {
        (&peer).write_all(&1u64.to_ne_bytes()).unwrap();
        assert!(rig.pending());
        assert!(matches!(rig.sleep(&Wait::kick(), LONG).unwrap()[..], [Woken::Kick]));
        assert!(!rig.pending());
    }
    drop(peer);
    assert!(matches!(rig.sleep(&Wait::kick(), LONG), Err(VringError::KickLost(_))));
}

#[test]
fn files_that_nobody_can_wait_for_are_no_kicks() {
    let (socket, peer) = socket();
    drop(peer);
    let epoll = File::from(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap().0);
    let full = tempfile::tempfile().unwrap();
    full.set_len(4096).unwrap();
    let null = File::open("/dev/null").unwrap();
    let zero = File::open("/dev/zero").unwrap();
    let folder = File::open("/").unwrap();
    let others = [epoll, tempfile::tempfile().unwrap(), full, null, zero, folder].map(Arc::new);
    let wake_ups = WakeUps::new(eventfd().as_fd()).unwrap();
    for kick in others.into_iter().chain([socket]) {
        let watch = RingWatch::new(0, Arc::clone(&kick), wake_ups.epoll());
        assert!(matches!(watch, Err(VringError::KickLost(_))), "{kick:?}");
    }
}
