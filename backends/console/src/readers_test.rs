//! Who gets what.

use super::*;

fn printed(count: usize) -> History {
    let mut history = History::new();
    history.add(count);
    history
}

#[test]
fn who_comes_alone_gets_what_nobody_has_read() {
    let history = printed(100);
    let mut readers = Readers::new(false);
    readers.follow(&[1], &history);
    assert_eq!(readers.position(1, &history), (0, 0));
    readers.took(1, 60);
    readers.follow(&[], &history);
    readers.follow(&[2], &history);
    assert_eq!(readers.position(2, &history), (60, 0));
    // In the same moment as the one before it left.
    readers.took(2, 10);
    readers.follow(&[3], &history);
    assert_eq!(readers.position(3, &history), (70, 0));
}

#[test]
fn who_joins_others_gets_all_that_is_kept() {
    let history = printed(100);
    let mut readers = Readers::new(false);
    readers.follow(&[1], &history);
    readers.took(1, 100);
    readers.follow(&[1, 2], &history);
    assert_eq!(readers.position(2, &history), (0, 0));
    assert!(readers.is_behind(2, &history) && !readers.is_behind(1, &history));
}

#[test]
fn with_replay_everybody_gets_all_that_is_kept() {
    let history = printed(100);
    let mut readers = Readers::new(true);
    readers.follow(&[1], &history);
    readers.took(1, 100);
    readers.follow(&[2], &history);
    assert_eq!(readers.position(2, &history), (0, 0));
}

#[test]
fn who_is_overtaken_is_told_by_how_much() {
    let mut history = printed(100);
    let mut readers = Readers::new(false);
    readers.follow(&[1], &history);
    history.add(crate::history::CAPACITY);
    assert_eq!(readers.position(1, &history), (100, 100));
    assert_eq!(readers.position(1, &history), (100, 0));
}

#[test]
fn the_slowest_who_still_takes_something_decides_what_is_needed() {
    let history = printed(100);
    let mut readers = Readers::new(false);
    assert_eq!(readers.needed(&history), 100);
    readers.follow(&[1, 2], &history);
    readers.took(1, 50);
    assert_eq!(readers.needed(&history), 0);
    let long_ago = Instant::now().checked_sub(PATIENCE).unwrap();
    readers.readers.get_mut(&2).unwrap().stuck_since = Some(long_ago);
    assert_eq!(readers.needed(&history), 50);
    readers.took(2, 1);
    assert_eq!(readers.needed(&history), 1);
}
