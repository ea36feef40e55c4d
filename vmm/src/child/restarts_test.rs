//! When a backend that died is started again.

use super::*;

/// Lets a backend die after `age` each time it is started, until it is given up or has died `most`
/// times; answers the waits, and when it ended.
fn dying(age: Duration, most: usize) -> (Vec<Duration>, bool, Duration) {
    let start = Instant::now();
    let (mut restarts, mut now, mut waits) = (Restarts::new(), start, Vec::new());
    for _ in 0..most {
        assert_eq!(restarts.next(now), Next::Start);
        now += age;
        restarts.died(age, now);
        match restarts.next(now) {
            Next::Wait(wait) => {
                waits.push(wait);
                now += wait;
            }
            Next::Start => waits.push(Duration::ZERO),
            Next::GiveUp => return (waits, true, now - start),
        }
    }
    (waits, false, now - start)
}

#[test]
fn a_backend_that_never_ran_is_started_at_once() {
    assert_eq!(Restarts::new().next(Instant::now()), Next::Start);
}

#[test]
fn a_backend_that_had_run_is_back_after_ten_milliseconds_however_often_it_dies() {
    let (waits, given_up, _) = dying(Duration::from_secs(1), 1000);
    assert!(waits.iter().all(|wait| *wait == Duration::from_millis(10)), "{waits:?}");
    assert!(!given_up);
}

#[test]
fn early_deaths_double_the_wait_up_to_five_seconds() {
    let (waits, _, _) = dying(Duration::ZERO, 12);
    let milliseconds: Vec<_> = waits.iter().map(Duration::as_millis).collect();
    assert_eq!(milliseconds, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000, 5000]);
}

#[test]
fn a_backend_that_dies_of_every_start_is_given_up_after_half_a_minute() {
    let (waits, given_up, lasted) = dying(Duration::from_millis(50), 1000);
    assert!(given_up);
    assert_eq!(waits.len(), 14);
    assert!(lasted < Duration::from_secs(40), "{lasted:?}");
}

#[test]
fn a_backend_that_is_killed_twice_a_second_is_never_given_up() {
    let (_, given_up, _) = dying(Duration::from_millis(500), 1000);
    assert!(!given_up);
}

#[test]
fn one_start_that_went_well_forgets_those_that_did_not() {
    let now = Instant::now();
    let mut restarts = Restarts::new();
    for _ in 0..LIMIT - 1 {
        restarts.died(Duration::ZERO, now);
    }
    assert_eq!(restarts.failed_starts(), LIMIT - 1);
    restarts.died(Duration::from_secs(10), now);
    assert_eq!(restarts.next(now), Next::Wait(Duration::from_millis(10)));
    assert_eq!(restarts.failed_starts(), 0);
}
