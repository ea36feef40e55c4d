use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Named, WakeUps};
use crate::event;
use crate::test_worker::{LONG, eventfd};

fn named(fd: &impl AsFd) -> Named<'_> {
    Named::from_iter([PollFd::new(fd.as_fd(), PollFlags::POLLIN)])
}

#[test]
fn the_bell_ends_every_sleep() {
    let (bell, other) = (eventfd(), eventfd());
    let wake_ups = WakeUps::new(bell.as_fd()).unwrap();
    assert!(!wake_ups.sleep(Named::new(), Some(Duration::ZERO), |_| ()).unwrap());
    event::signal(&bell);
    for _ in 0..2 {
        assert!(wake_ups.sleep(Named::new(), None, |_| ()).unwrap());
        assert!(wake_ups.sleep(named(&other), None, |_| ()).unwrap());
    }
}

#[test]
fn an_edge_that_ends_a_sleep_on_something_else_as_well_ends_no_other() {
    let (bell, other, edge) = (eventfd(), eventfd(), eventfd());
    let wake_ups = WakeUps::new(bell.as_fd()).unwrap();
    let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 7);
    wake_ups.epoll().add(&edge, event).unwrap();
    event::signal(&edge);
    let mut happened = Vec::new();
    assert!(
        !wake_ups.sleep(named(&other), Some(LONG), |event| happened.push(event.data())).unwrap()
    );
    assert_eq!(happened, [7]);
    let mut ours = named(&wake_ups.epoll().0);
    assert_eq!(poll(&mut ours, PollTimeout::ZERO), Ok(0));
}

#[test]
fn a_descriptor_that_took_a_closed_ones_number_is_waited_for() {
    let bell = eventfd();
    let wake_ups = WakeUps::new(bell.as_fd()).unwrap();
    for _ in 0..3 {
        let (other, peer) = UnixStream::pair().unwrap();
        drop(peer);
        let begun = Instant::now();
        assert!(!wake_ups.sleep(named(&other), Some(LONG), |_| ()).unwrap());
        assert!(begun.elapsed() < LONG);
    }
}
