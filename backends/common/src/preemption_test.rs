//! When a thread of rings lets others finish, and when it does no longer.

use std::time::{Duration, Instant};

use super::{Choice, Class, FIRST, Harvest, MOST, WAKE_UPS};
use crate::carried::Carried;

const SOON: Duration = Duration::from_millis(20);

/// A harvest of [`WAKE_UPS`], from chains and bytes a chain of each ring.
fn harvest(rings: [(u32, u64); 2]) -> Harvest {
    let rings = rings.map(|(chains, bytes)| Carried { chains, bytes: u64::from(chains) * bytes });
    Harvest { wake_ups: WAKE_UPS, rings, took: SOON }
}

/// Large segments that are sent, each with its acknowledgement: `times` a wake-up.
fn segments(times: u32) -> Harvest {
    harvest([(times * WAKE_UPS, 78), (times * WAKE_UPS, 43_000)])
}

/// The classes for these harvests, one after the other.
fn classes(harvests: &[Harvest]) -> Vec<Class> {
    let mut now = Instant::now();
    let mut choice = Choice::new(now);
    let class = |harvest: &Harvest| {
        now += SOON;
        choice.class(*harvest, now)
    };
    harvests.iter().map(class).collect()
}

#[test]
fn what_comes_one_by_one_in_a_stream_is_waited_for() {
    let segments = segments(1);
    let small = harvest([(0, 0), (WAKE_UPS, 76)]);
    let received = harvest([(4 * WAKE_UPS, 1500), (WAKE_UPS, 66)]);
    for stream in [segments, small, received] {
        assert_eq!(classes(&[stream]), [Class::Batch], "{stream:?}");
    }
}

#[test]
fn questions_and_answers_are_not() {
    let small = harvest([(WAKE_UPS, 100), (WAKE_UPS, 100)]);
    let long = harvest([(WAKE_UPS, 9000), (WAKE_UPS, 100)]);
    // The answers' acknowledgements besides.
    let acknowledged = harvest([(WAKE_UPS / 2, 100), (WAKE_UPS, 100)]);
    // Of them only some are long.
    let some = harvest([(WAKE_UPS / 2, 100), (WAKE_UPS / 4 - 1, 60_000)]);
    for exchange in [small, long, acknowledged, some, harvest([(0, 0); 2])] {
        assert_eq!(classes(&[exchange]), [Class::Other], "{exchange:?}");
    }
}

#[test]
fn a_slow_stream_is_not() {
    let mut choice = Choice::new(Instant::now());
    for took in [Duration::from_millis(33), Duration::from_secs(60), Duration::MAX] {
        let slow = Harvest { took, ..harvest([(0, 0), (WAKE_UPS, 76)]) };
        assert_eq!(choice.class(slow, Instant::now()), Class::Other);
    }
}

#[test]
fn waiting_goes_on_while_wake_ups_bring_more_for_it() {
    let more = [segments(1), segments(2), segments(3), segments(2)];
    assert_eq!(classes(&more), [Class::Batch; 4]);
    let none = classes(&[segments(2), segments(4), segments(2)]);
    assert_eq!(none, [Class::Batch, Class::Batch, Class::Other]);
}

#[test]
fn waiting_ends_with_the_stream() {
    let question = harvest([(WAKE_UPS, 100), (WAKE_UPS, 100)]);
    let after = classes(&[segments(1), segments(3), question, question]);
    assert_eq!(after, [Class::Batch, Class::Batch, Class::Other, Class::Other]);
}

#[test]
fn waiting_that_keeps_the_stream_from_coming_is_in_vain() {
    // Twice as much with each wake-up, in three times the time.
    let less = Harvest { took: SOON * 3, ..segments(2) };
    assert_eq!(
        classes(&[segments(1), less, segments(1)]),
        [Class::Batch, Class::Other, Class::Other]
    );
    // Nor is it tried again at once where that is so slow that it is no stream any more.
    let slow = Harvest { took: SOON * 10, ..segments(1) };
    assert_eq!(
        classes(&[segments(1), slow, segments(1)]),
        [Class::Batch, Class::Other, Class::Other]
    );
    // A little less passes where acknowledgements are fewer.
    let little = Harvest { took: SOON * 2, ..segments(2) };
    assert_eq!(classes(&[segments(1), little]), [Class::Batch; 2]);
}

#[test]
fn what_was_in_vain_is_tried_less_and_less_often() {
    let mut now = Instant::now();
    let mut choice = Choice::new(now);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let began = now;
        while choice.class(segments(1), now) == Class::Other {
            now += Duration::from_millis(1);
        }
        pauses.push(now.saturating_duration_since(began));
        assert_eq!(choice.class(segments(1), now), Class::Other);
    }
    assert_eq!(pauses[..3], [Duration::ZERO, FIRST, FIRST * 2]);
    assert_eq!(pauses.last(), Some(&MOST));

    // Once it has paid, it is tried as soon as at first.
    now += MOST;
    assert_eq!(choice.class(segments(1), now), Class::Batch);
    assert_eq!(choice.class(segments(2), now), Class::Batch);
    assert_eq!(choice.class(segments(1), now), Class::Other);
    now += FIRST;
    assert_eq!(choice.class(segments(1), now), Class::Batch);
}
