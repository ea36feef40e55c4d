use std::time::Duration;

use super::Polling;

const LIMIT: Duration = Duration::from_micros(40);

fn after(times: &[u64]) -> Duration {
    let mut polling = Polling::default();
    times.iter().for_each(|&time| polling.work_came(Duration::from_micros(time), LIMIT));
    polling.window(LIMIT)
}

#[test]
fn a_ring_is_not_polled_before_work_comes_soon() {
    assert_eq!(after(&[]), Duration::ZERO);
    assert_eq!(after(&[1_000, 50_000]), Duration::ZERO);
}

#[test]
fn work_that_comes_soon_is_waited_for_up_to_the_limit() {
    assert_eq!(after(&[5]), LIMIT / 4);
    assert_eq!(after(&[5, 40]), LIMIT / 2);
    assert_eq!(after(&[5, 5, 5, 5, 5, 5]), LIMIT);
}

#[test]
fn one_pause_does_not_end_polling_and_several_do() {
    assert_eq!(after(&[5, 5, 5, 1_000]), LIMIT / 2);
    assert_eq!(after(&[5, 5, 5, 1_000, 1_000, 1_000]), Duration::ZERO);
}

#[test]
fn a_ring_that_was_stopped_being_polled_begins_anew() {
    let mut polling = Polling::default();
    (0..5).for_each(|_| polling.work_came(Duration::from_micros(5), LIMIT));
    polling.stop();
    assert_eq!(polling.window(LIMIT), Duration::ZERO);
}

#[test]
fn without_a_limit_there_is_no_polling() {
    let mut polling = Polling::default();
    polling.work_came(Duration::ZERO, Duration::ZERO);
    assert_eq!(polling.window(Duration::ZERO), Duration::ZERO);
}
