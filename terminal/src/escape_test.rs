//! Which keys are whose, however they are cut into pieces.

use super::*;

/// What is the guest's of `typed`, and whether the user leaves; the same however it is cut.
#[track_caller]
fn take(typed: &[u8]) -> (Vec<u8>, bool) {
    let mut whole = Vec::new();
    let left = Escape::default().take(typed, &mut whole);
    let (mut single, mut escape) = (Vec::new(), Escape::default());
    let left_singly = typed.chunks(1).any(|key| escape.take(key, &mut single));
    assert_eq!((&single, left_singly), (&whole, left), "one at a time as all at once");
    (whole, left)
}

#[test]
fn all_keys_but_the_prefix_are_the_guests() {
    let all: Vec<u8> = (0..=255).filter(|&key| key != PREFIX).collect();
    assert_eq!(take(&all), (all, false));
    assert_eq!(take(b"quit\x03\x04"), (b"quit\x03\x04".to_vec(), false));
}

#[test]
fn q_behind_the_prefix_leaves_and_what_follows_is_nobodys() {
    assert_eq!(take(b"ls\r\x1dqrm\r"), (b"ls\r".to_vec(), true));
    assert_eq!(take(b"\x1dQ"), (vec![], true));
}

#[test]
fn b_behind_the_prefix_is_a_break() {
    assert_eq!(take(b"a\x1dbh"), (b"a\x0fh".to_vec(), false));
}

#[test]
fn the_prefix_twice_is_the_key_itself_and_no_prefix() {
    assert_eq!(take(b"\x1d\x1dq"), (b"\x1dq".to_vec(), false));
    assert_eq!(take(b"\x1d\x1d\x1dq"), (b"\x1d".to_vec(), true));
}

#[test]
fn the_prefix_before_any_other_key_is_the_guests_with_it() {
    assert_eq!(take(b"\x1dx\x1d\x03"), (b"\x1dx\x1d\x03".to_vec(), false));
}

#[test]
fn a_prefix_waits_for_the_next_key() {
    assert_eq!(take(b"a\x1d"), (b"a".to_vec(), false));
}
