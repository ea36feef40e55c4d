//! Limits on how fast a device works: bytes and operations a second, each with a burst. Which
//! requests count, and what waits, is the device's.
//!
//! Each of the two is a token bucket in the form of a clock: the time at which it would be full
//! again. A request is let through while the bucket is not empty and may leave it in debt, which
//! those after it wait out; so a request larger than the burst is slow, and not stuck.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SECOND: u128 = 1_000_000_000;

/// The longest that a queue waits before it asks again, so that changed limits soon apply.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// The limits of a device, as users give them and see them; zero stands for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a second.
    pub bps: u64,
    /// How many bytes may go at once after a rest; zero stands for a tenth of a second's.
    pub bps_burst: u64,
    /// Operations a second.
    pub iops: u64,
    /// How many operations may go at once after a rest; zero stands for a tenth of a second's.
    pub iops_burst: u64,
}

/// The options of a device that can be limited.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// The most bytes a second, such as 100M
    #[arg(long, value_name = "BYTES", value_parser = limit)]
    pub limit_bps: Option<u64>,

    /// How many bytes may go at once after a rest [default: a tenth of a second's]
    #[arg(long, value_name = "BYTES", value_parser = limit, requires = "limit_bps")]
    pub limit_bps_burst: Option<u64>,

    /// The most operations a second
    #[arg(long, value_name = "N", value_parser = limit)]
    pub limit_iops: Option<u64>,

    /// How many operations may go at once after a rest [default: a tenth of a second's]
    #[arg(long, value_name = "N", value_parser = limit, requires = "limit_iops")]
    pub limit_iops_burst: Option<u64>,
}

/// Reads a number above zero, with K, M or G behind it for 2^10, 2^20 or 2^30.
///
/// # Errors
/// A sentence, when it is none.
pub fn limit(text: &str) -> Result<u64, String> {
    let units = [('K', 10_u32), ('M', 20), ('G', 30)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(*unit)?, *shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1_u64 << shift));
    number
        .filter(|number| *number > 0)
        .ok_or_else(|| "a limit is a number above zero, such as 5000, 64K or 100M".into())
}

impl From<LimitArgs> for Limits {
    fn from(args: LimitArgs) -> Self {
        Self {
            bps: args.limit_bps.unwrap_or(0),
            bps_burst: args.limit_bps_burst.unwrap_or(0),
            iops: args.limit_iops.unwrap_or(0),
            iops_burst: args.limit_iops_burst.unwrap_or(0),
        }
    }
}

/// Part of the limits, to be changed; what is absent stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitChange {
    /// Bytes a second.
    pub bps: Option<u64>,
    /// Its burst.
    pub bps_burst: Option<u64>,
    /// Operations a second.
    pub iops: Option<u64>,
    /// Its burst.
    pub iops_burst: Option<u64>,
}

/// The limits don't fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// A burst of bytes that have no limit.
    #[error("there is a burst of bytes, and no limit on them")]
    Bytes,
    /// A burst of operations that have no limit.
    #[error("there is a burst of operations, and no limit on them")]
    Operations,
}

impl Limits {
    /// The limits as they are after `change`. A limit that is taken away takes its burst along.
    ///
    /// # Errors
    /// [`LimitError`], when they don't fit together.
    pub fn changed(self, change: LimitChange) -> Result<Self, LimitError> {
        let burst = |limit: Option<u64>, burst: Option<u64>, now| match (limit, burst) {
            (_, Some(burst)) => burst,
            (Some(0), None) => 0,
            (_, None) => now,
        };
        let limits = Self {
            bps: change.bps.unwrap_or(self.bps),
            bps_burst: burst(change.bps, change.bps_burst, self.bps_burst),
            iops: change.iops.unwrap_or(self.iops),
            iops_burst: burst(change.iops, change.iops_burst, self.iops_burst),
        };
        limits.check().map(|()| limits)
    }

    /// Whether they fit together.
    ///
    /// # Errors
    /// [`LimitError`], when they don't.
    pub fn check(self) -> Result<(), LimitError> {
        match self {
            Self { bps: 0, bps_burst: 1.., .. } => Err(LimitError::Bytes),
            Self { iops: 0, iops_burst: 1.., .. } => Err(LimitError::Operations),
            _ => Ok(()),
        }
    }
}

/// One bucket; without a rate it lets everything through.
#[derive(Debug, Default)]
struct Bucket {
    rate: AtomicU64,
    /// The time it takes to fill.
    depth: AtomicU64,
    /// When it is full again, in nanoseconds.
    full_at: AtomicU64,
}

impl Bucket {
    fn set(&self, rate: u64, burst: u64) {
        let burst = if burst == 0 { (rate / 10).max(1) } else { burst };
        self.depth.store(time_for(burst, rate), Ordering::Relaxed);
        self.rate.store(rate, Ordering::Relaxed);
        // Debts were made under other limits.
        self.full_at.store(0, Ordering::Relaxed);
    }

    /// How long until there is a whole byte, or operation, in it.
    fn wait(&self, now: u64) -> u64 {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return 0;
        }
        let depth = self.depth.load(Ordering::Relaxed);
        let full_at = self.full_at.load(Ordering::Relaxed);
        full_at.saturating_add(time_for(1, rate)).saturating_sub(depth).saturating_sub(now)
    }

    fn take(&self, amount: u64, now: u64) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 || amount == 0 {
            return;
        }
        let time = time_for(amount, rate);
        let later = |full_at: u64| Some(full_at.max(now).saturating_add(time));
        // The closure always answers.
        let _before = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }
}

/// How many nanoseconds `amount` takes at `rate`, never too few.
fn time_for(amount: u64, rate: u64) -> u64 {
    let time = u128::from(amount).saturating_mul(SECOND);
    let time = time.checked_add(u128::from(rate)).and_then(|time| time.checked_sub(1));
    let time = time.and_then(|time| time.checked_div(u128::from(rate)));
    time.map_or(0, |time| u64::try_from(time).unwrap_or(u64::MAX))
}

/// What the queues of a device ask before each request. Shared by all of them, without a lock: two
/// that ask at the same moment may both get the last token, so the debt is at most one request a
/// queue.
#[derive(Debug)]
pub struct Limiter {
    /// Whether there is any limit, so that without one asking costs one load.
    limited: AtomicBool,
    bytes: Bucket,
    operations: Bucket,
    start: Instant,
    /// As they were given, for who asks.
    limits: Mutex<Limits>,
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            limited: AtomicBool::new(false),
            bytes: Bucket::default(),
            operations: Bucket::default(),
            start: Instant::now(),
            limits: Mutex::default(),
        }
    }
}

impl Limiter {
    /// A limiter with full buckets.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let limiter = Self::default();
        limiter.set(limits);
        limiter
    }

    /// The limits that apply.
    pub fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the limits, as [`Limits::changed`] says.
    ///
    /// # Errors
    /// [`LimitError`], when they don't fit together; those before stay.
    pub fn change(&self, change: LimitChange) -> Result<Limits, LimitError> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        *limits = limits.changed(change)?;
        self.apply(*limits);
        Ok(*limits)
    }

    /// Other limits apply from now on, with full buckets.
    pub fn set(&self, limits: Limits) {
        let mut kept = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = limits;
        self.apply(limits);
    }

    fn apply(&self, limits: Limits) {
        self.bytes.set(limits.bps, limits.bps_burst);
        self.operations.set(limits.iops, limits.iops_burst);
        self.limited.store(limits.bps != 0 || limits.iops != 0, Ordering::Release);
    }

    /// Whether there is any limit.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.limited.load(Ordering::Acquire)
    }

    /// Lets one operation of `bytes` through, or says after which time to ask again.
    ///
    /// # Errors
    /// The time to wait.
    #[inline]
    pub fn take(&self, bytes: u64) -> Result<(), Duration> {
        if self.is_set() { self.take_now(bytes) } else { Ok(()) }
    }

    /// Whether anything may go through now; what does is charged later, when its size is known.
    ///
    /// # Errors
    /// The time to wait.
    #[inline]
    pub fn check(&self) -> Result<(), Duration> {
        if self.is_set() { self.check_now() } else { Ok(()) }
    }

    /// Counts one operation of `bytes` that can't wait.
    #[inline]
    pub fn charge(&self, bytes: u64) {
        if self.is_set() {
            self.charge_now(bytes);
        }
    }
}

/// Where there is a limit: apart, so that who has none does not come near this code.
impl Limiter {
    #[inline(never)]
    fn take_now(&self, bytes: u64) -> Result<(), Duration> {
        self.take_at(bytes, self.now())
    }

    #[inline(never)]
    fn check_now(&self) -> Result<(), Duration> {
        self.check_at(self.now())
    }

    #[inline(never)]
    fn charge_now(&self, bytes: u64) {
        self.charge_at(bytes, self.now());
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn check_at(&self, now: u64) -> Result<(), Duration> {
        let wait = self.bytes.wait(now).max(self.operations.wait(now));
        if wait > 0 { Err(Duration::from_nanos(wait).min(LONGEST_WAIT)) } else { Ok(()) }
    }

    fn take_at(&self, bytes: u64, now: u64) -> Result<(), Duration> {
        self.check_at(now)?;
        self.charge_at(bytes, now);
        Ok(())
    }

    fn charge_at(&self, bytes: u64, now: u64) {
        self.bytes.take(bytes, now);
        self.operations.take(1, now);
    }
}

#[cfg(test)]
#[path = "limits_test.rs"]
mod tests;
