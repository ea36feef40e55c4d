use std::time::Duration;

use super::Polling;

const LIMIT: Duration = Duration::from_micros(40);
const SOON: Duration = Duration::from_micros(5);
const LATE: Duration = Duration::from_millis(1);

/// How often work has to come soon until the ring is polled; `None` for never.
fn attempts(polling: &mut Polling) -> Option<u32> {
    (0..5000).find(|_| {
        polling.woken(SOON, LIMIT);
        !polling.window(LIMIT).is_zero()
    })
}

#[test]
fn a_ring_is_polled_once_work_keeps_coming_soon() {
    let mut polling = Polling::default();
    assert_eq!(polling.window(LIMIT), Duration::ZERO);
    for _ in 0..100 {
        polling.woken(SOON, LIMIT);
        polling.woken(LATE, LIMIT);
    }
    assert_eq!(polling.window(LIMIT), Duration::ZERO, "now and then is not enough");
    assert_eq!(attempts(&mut polling), Some(3));
    assert_eq!(polling.window(LIMIT), LIMIT);
}

#[test]
fn polling_goes_on_while_it_meets_work_and_ends_at_the_first_pause() {
    let mut polling = Polling::default();
    attempts(&mut polling);
    (0..100).for_each(|_| polling.met(SOON, LIMIT));
    assert_eq!(polling.window(LIMIT), LIMIT);
    polling.missed();
    assert_eq!(polling.window(LIMIT), Duration::ZERO);
    for _ in 0..100 {
        polling.woken(LATE, LIMIT);
    }
    assert_eq!(polling.window(LIMIT), Duration::ZERO);
}

#[test]
fn polling_in_vain_is_tried_ever_less_often_until_it_helps() {
    let mut polling = Polling::default();
    let mut waits = Vec::new();
    for _ in 0..12 {
        waits.push(attempts(&mut polling).unwrap() + 1);
        polling.missed();
    }
    assert_eq!(waits[..4], [4, 8, 16, 32]);
    assert_eq!(waits[8..], [1024; 4]);
    attempts(&mut polling);
    polling.met(SOON, LIMIT);
    polling.missed();
    assert_eq!(attempts(&mut polling), Some(7), "it had helped");
}

#[test]
fn after_long_success_a_pause_is_no_reason_to_doubt() {
    let mut polling = Polling::default();
    attempts(&mut polling);
    (0..100).for_each(|_| polling.met(SOON, LIMIT));
    polling.missed();
    assert_eq!(attempts(&mut polling), Some(0));
    polling.missed();
    assert_eq!(attempts(&mut polling), Some(1), "it had not helped since");
}

#[test]
fn polling_that_meets_work_later_than_sleep_does_is_in_vain() {
    let mut polling = Polling::default();
    attempts(&mut polling);
    for _ in 0..100 {
        polling.met(SOON, LIMIT);
        polling.met(2 * SOON, LIMIT);
    }
    assert_eq!(polling.window(LIMIT), LIMIT, "now and then is no matter");
    (0..4).for_each(|_| polling.met(2 * SOON, LIMIT));
    assert_eq!(polling.window(LIMIT), Duration::ZERO);
    let before = attempts(&mut polling).unwrap();
    (0..4).for_each(|_| polling.met(2 * SOON, LIMIT));
    assert!(attempts(&mut polling).unwrap() > before, "it is tried less often");
}

#[test]
fn work_that_takes_most_of_the_window_to_come_is_not_polled_for() {
    let mut polling = Polling::default();
    (0..5000).for_each(|_| polling.woken(LIMIT * 3 / 4, LIMIT));
    assert_eq!(polling.window(LIMIT), Duration::ZERO);
}

#[test]
fn work_that_is_met_late_was_not_met() {
    let mut polling = Polling::default();
    attempts(&mut polling);
    polling.met(LATE, LIMIT);
    assert_eq!(polling.window(LIMIT), Duration::ZERO);
}

#[test]
fn waits_for_the_disk_say_nothing_of_the_driver() {
    let mut polling = Polling::default();
    for _ in 0..4 {
        polling.woken(LATE, Duration::ZERO);
        assert_eq!(polling.window(LIMIT), Duration::ZERO);
        polling.woken(SOON, LIMIT);
    }
    assert_eq!(polling.window(LIMIT), LIMIT);
}

#[test]
fn without_a_limit_there_is_no_polling() {
    let mut polling = Polling::default();
    (0..5000).for_each(|_| polling.woken(Duration::ZERO, Duration::ZERO));
    assert_eq!(polling.window(LIMIT), Duration::ZERO);
}
