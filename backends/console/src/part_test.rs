//! What the next worker knows.

use super::*;

const PART: Part = Part { position: Some(3), len: 100, printed: 60 };

#[test]
fn the_next_worker_goes_on_where_the_last_one_ended() {
    let last = LastPart::default();
    let (none, resets) = last.take();
    assert_eq!(none, None);
    last.put(Some(PART), resets);
    assert_eq!(last.take(), (Some(PART), resets));
    last.put(None, resets);
    assert_eq!(last.take(), (None, resets));
}

#[test]
fn a_worker_that_ends_after_the_device_was_reset_leaves_nothing() {
    let last = LastPart::default();
    let (_none, resets) = last.take();
    last.reset();
    last.put(Some(PART), resets);
    let (part, resets) = last.take();
    assert_eq!(part, None);
    last.put(Some(PART), resets);
    last.reset();
    assert_eq!(last.take().0, None);
}
