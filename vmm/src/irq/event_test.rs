use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::*;

#[test]
fn an_event_counts_until_it_is_drained() {
    let event = Event::new().unwrap();
    assert!(!event.is_signalled() && !event.drain());
    event.signal();
    event.signal();
    assert!(event.is_signalled() && event.drain());
    assert!(!event.is_signalled() && !event.drain());
}

#[test]
fn an_event_blocks_nobody_whatever_a_peer_makes_of_its_file() {
    let event = Event::new().unwrap();
    event.eventfd().write(u64::MAX - 1).unwrap();
    fcntl(event.as_fd(), FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    event.signal();
    assert!(event.drain());
    assert!(!event.drain());
}
