use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::WakeUps;
use crate::device::Wait;
use crate::event;
use crate::vring::VringError;

/// Long enough for whoever waits that long to be noticed.
const LONG: Duration = Duration::from_secs(20);

fn eventfd() -> File {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).unwrap();
    OwnedFd::from(event).into()
}

/// A descriptor as a front-end may send it, and its other end.
fn socket() -> (File, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (event::accept(OwnedFd::from(ours).into()).unwrap(), theirs)
}

fn readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() > 0
}

/// Whether the next wait for kicks ends at once.
fn pending(wake_ups: &WakeUps<'_>) -> bool {
    readable(&wake_ups.epoll.0)
}

fn lost(result: &Result<impl Sized, VringError>) -> bool {
    matches!(result, Err(VringError::KickLost(_)))
}

#[test]
fn every_kick_wakes_once_though_nobody_reads_it_back() {
    let (kick, stop) = (eventfd(), eventfd());
    let wake_ups = WakeUps::new(&kick, stop.as_fd()).unwrap();
    for _ in 0..3 {
        assert!(!pending(&wake_ups));
        event::signal(&kick);
        event::signal(&kick);
        assert!(pending(&wake_ups));
        wake_ups.sleep(&Wait::kick().within(LONG)).unwrap();
        assert!(readable(&kick), "that would be a system call more");
    }
    assert!(!pending(&wake_ups));
}

#[test]
fn a_kick_wakes_once_who_waits_for_something_else_as_well() {
    let (kick, stop, (other, _peer)) = (eventfd(), eventfd(), socket());
    let wake_ups = WakeUps::new(&kick, stop.as_fd()).unwrap();
    let wait = Wait::kick().on(other.as_fd(), PollFlags::POLLIN).within(LONG);
    for wait in [wait, wait.on(other.as_fd(), PollFlags::POLLOUT)] {
        event::signal(&kick);
        wake_ups.sleep(&wait).unwrap();
        assert!(!pending(&wake_ups));
    }
}

#[test]
fn a_kick_that_is_not_waited_for_is_kept() {
    let (kick, stop, (other, mut peer)) = (eventfd(), eventfd(), socket());
    let wake_ups = WakeUps::new(&kick, stop.as_fd()).unwrap();
    event::signal(&kick);
    let (begun, whole) = (Instant::now(), Duration::from_millis(20));
    wake_ups.sleep(&Wait::no_kick().within(whole)).unwrap();
    assert!(begun.elapsed() >= whole, "the kick ended it");
    peer.write_all(b"x").unwrap();
    wake_ups.sleep(&Wait::no_kick().on(other.as_fd(), PollFlags::POLLIN).within(LONG)).unwrap();
    assert!(pending(&wake_ups));
    wake_ups.sleep(&Wait::kick().within(LONG)).unwrap();
    assert!(!pending(&wake_ups));
}

#[test]
fn kicks_before_the_start_wake_once_and_those_after_do() {
    let (kick, stop) = (eventfd(), eventfd());
    event::signal(&kick);
    event::signal(&kick);
    let wake_ups = WakeUps::new(&kick, stop.as_fd()).unwrap();
    wake_ups.sleep(&Wait::kick().within(LONG)).unwrap();
    assert!(!pending(&wake_ups));
    // From another descriptor of the same event, as a front-end's.
    event::signal(&kick.try_clone().unwrap());
    assert!(pending(&wake_ups));
}

#[test]
fn who_starts_on_a_kick_takes_no_other_rings_kick_away() {
    let (kick, stop) = (eventfd(), eventfd());
    let wake_ups = WakeUps::new(&kick, stop.as_fd()).unwrap();
    event::signal(&kick);
    let other = WakeUps::new(&kick, stop.as_fd()).unwrap();
    assert!(pending(&wake_ups) && pending(&other));
}

#[test]
fn to_be_stopped_ends_every_wait() {
    let (kick, stop, (other, _peer)) = (eventfd(), eventfd(), socket());
    let wake_ups = WakeUps::new(&kick, stop.as_fd()).unwrap();
    event::signal(&stop);
    for wait in [Wait::kick(), Wait::no_kick()] {
        wake_ups.sleep(&wait).unwrap();
        wake_ups.sleep(&wait.on(other.as_fd(), PollFlags::POLLIN)).unwrap();
    }
    assert!(pending(&wake_ups), "it does not end only one");
}

#[test]
fn a_descriptor_that_took_a_closed_ones_number_is_waited_for() {
    let (kick, stop) = (eventfd(), eventfd());
    let wake_ups = WakeUps::new(&kick, stop.as_fd()).unwrap();
    for _ in 0..3 {
        let (other, mut peer) = socket();
        peer.write_all(b"x").unwrap();
        wake_ups.sleep(&Wait::no_kick().on(other.as_fd(), PollFlags::POLLIN)).unwrap();
        wake_ups.sleep(&Wait::kick().on(other.as_fd(), PollFlags::POLLIN)).unwrap();
    }
}

#[test]
fn what_only_passes_bytes_kicks_too_and_never_fills_up() {
    let ((kick, peer), stop) = (socket(), eventfd());
    peer.set_nonblocking(true).unwrap();
    let wake_ups = WakeUps::new(&kick, stop.as_fd()).unwrap();
    for _ in 0..1000 {
        (&peer).write_all(&1u64.to_ne_bytes()).unwrap();
        assert!(pending(&wake_ups));
        wake_ups.sleep(&Wait::kick().within(LONG)).unwrap();
        assert!(!pending(&wake_ups));
    }
    drop(peer);
    assert!(lost(&wake_ups.sleep(&Wait::kick().within(LONG))));
}

#[test]
fn files_that_nobody_can_wait_for_are_no_kicks() {
    let stop = eventfd();
    let (socket, peer) = socket();
    drop(peer);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap().0;
    let full = tempfile::tempfile().unwrap();
    full.set_len(4096).unwrap();
    let null = File::open("/dev/null").unwrap();
    let zero = File::open("/dev/zero").unwrap();
    let folder = File::open("/").unwrap();
    for kick in [socket, epoll.into(), tempfile::tempfile().unwrap(), full, null, zero, folder] {
        assert!(lost(&WakeUps::new(&kick, stop.as_fd())), "{kick:?}");
    }
}
