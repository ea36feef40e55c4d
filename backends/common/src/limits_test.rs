//! What is let through, counted against the arithmetic of the buckets under a clock of the test's.

#![expect(clippy::arithmetic_side_effects, reason = "small numbers of the test's own")]

use proptest::prelude::*;

use super::*;

const S: u64 = 1_000_000_000;

/// Works as hard as the limiter lets for `time`, by its own waits; the operations let through.
fn operations_in(limiter: &Limiter, bytes: u64, from: u64, time: u64) -> u64 {
    let (mut now, mut count) = (from, 0);
    while now < from + time {
        match limiter.take_at(bytes, now) {
            Ok(()) => count += 1,
            Err(wait) => {
                assert!(!wait.is_zero(), "a wait for nothing would spin");
                now += u64::try_from(wait.as_nanos()).unwrap();
            }
        }
    }
    count
}

#[test]
fn operations_are_the_burst_and_then_the_rate() {
    let limiter = Limiter::new(Limits { iops: 100, iops_burst: 5, ..Limits::default() });
    assert_eq!(operations_in(&limiter, 4096, 0, 1), 5);
    assert_eq!(operations_in(&limiter, 4096, 1, S), 100);
    assert_eq!(operations_in(&limiter, 4096, S + 1, S), 100);
}

#[test]
fn a_rest_fills_the_bucket_and_no_more() {
    let limiter = Limiter::new(Limits { iops: 100, iops_burst: 5, ..Limits::default() });
    assert_eq!(operations_in(&limiter, 0, 0, 1), 5);
    assert_eq!(operations_in(&limiter, 0, 3600 * S, 1), 5);
}

#[test]
fn a_request_larger_than_the_burst_goes_and_is_paid_for_by_the_next() {
    let limits = Limits { bps: 1000, bps_burst: 10, ..Limits::default() };
    let limiter = Limiter::new(limits);
    assert_eq!(limiter.take_at(5000, 0), Ok(()));
    assert_eq!(limiter.take_at(1, 4 * S), Err(LONGEST_WAIT));
    assert_eq!(limiter.take_at(1, 5 * S), Ok(()));
}

#[test]
fn the_tighter_of_both_limits_counts() {
    let limits = Limits { bps: 4096 * 50, bps_burst: 4096, iops: 100, iops_burst: 1 };
    let limiter = Limiter::new(limits);
    // The burst, and from then on one each time that the debt of the one before is paid.
    assert_eq!(operations_in(&limiter, 4096, 0, 10 * S), 1 + 500);
    let limiter = Limiter::new(limits);
    assert_eq!(operations_in(&limiter, 1, 0, 10 * S), 1000);
}

#[test]
fn changed_limits_apply_at_once() {
    let limiter = Limiter::new(Limits { bps: 1, ..Limits::default() });
    assert_eq!(limiter.take_at(1 << 30, 0), Ok(()));
    assert!(limiter.take_at(1, S).is_err());
    limiter.set(Limits { iops: 10, iops_burst: 1, ..Limits::default() });
    assert_eq!(operations_in(&limiter, 1 << 30, S, S), 10);
    limiter.set(Limits::default());
    assert!((0..1000).all(|_| limiter.take(u64::MAX).is_ok()));
}

#[test]
fn a_limit_that_is_set_and_taken_away_while_it_runs_is_seen_at_the_next_check() {
    let limiter = Limiter::default();
    limiter.charge(1 << 30);
    assert_eq!(limiter.check(), Ok(()));
    limiter.set(Limits { bps: 1, ..Limits::default() });
    assert_eq!(limiter.check(), Ok(()), "what went before it is no debt");
    limiter.charge(1 << 30);
    assert_eq!(limiter.check(), Err(LONGEST_WAIT));
    assert_eq!(limiter.take(1), Err(LONGEST_WAIT));
    limiter.set(Limits::default());
    assert_eq!(limiter.check(), Ok(()));
}

#[test]
fn what_a_change_leaves_out_stays() {
    let limits = Limits { bps: 1000, bps_burst: 10, ..Limits::default() };
    let change = LimitChange { iops: Some(5), ..LimitChange::default() };
    let both = limits.changed(change).unwrap();
    assert_eq!(both, Limits { iops: 5, ..limits });
    let change = LimitChange { bps: Some(0), ..LimitChange::default() };
    assert_eq!(both.changed(change), Ok(Limits { iops: 5, ..Limits::default() }));
    let change = LimitChange { iops_burst: Some(5), ..LimitChange::default() };
    assert_eq!(limits.changed(change), Err(LimitError::Operations));
}

proptest! {
    /// In any time, of any requests in any rhythm, no more goes through than the burst, the rate's
    /// part of the time, and the one request that may go into debt.
    #[test]
    fn never_more_than_burst_and_rate(
        bps in 1..1_u64 << 40,
        burst in 1..1_u64 << 30,
        requests in prop::collection::vec((0..1_u64 << 24, 0..1_u64 << 30), 1..200),
    ) {
        let limiter = Limiter::new(Limits { bps, bps_burst: burst, ..Limits::default() });
        let (mut now, mut through, mut largest) = (0, 0_u128, 0_u128);
        for (bytes, pause) in requests {
            now += pause;
            if limiter.take_at(bytes, now).is_ok() {
                through += u128::from(bytes);
                largest = largest.max(u128::from(bytes));
            }
            let earned = u128::from(bps) * u128::from(now) / u128::from(S);
            // A nanosecond's worth is lost to rounding the burst's time up.
            let rounding = u128::from(bps / S + 1);
            prop_assert!(through <= u128::from(burst) + earned + largest + rounding);
        }
    }

    /// Whatever the limits and requests, who waits as told gets on.
    #[test]
    fn who_waits_gets_on(
        bps in any::<u64>(), bps_burst in any::<u64>(), iops in any::<u64>(),
        iops_burst in any::<u64>(), now in 0..u64::MAX / 2,
    ) {
        let limiter = Limiter::new(Limits { bps, bps_burst, iops, iops_burst });
        prop_assert_eq!(limiter.take_at(1, now), Ok(()));
        match limiter.take_at(1, now) {
            Ok(()) => {}
            Err(wait) => prop_assert!(!wait.is_zero() && wait <= LONGEST_WAIT),
        }
    }
}
