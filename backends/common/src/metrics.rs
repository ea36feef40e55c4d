//! What a device has done, counted: per queue, by the thread of its ring, without a lock. As text
//! it is what Prometheus reads. Who asks for it is not known here.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use crate::panel::Counter;

/// The upper bounds of the latency buckets in nanoseconds, with how they are written in seconds.
const BOUNDS: [(u64, &str); 12] = [
    (10_000, "0.00001"),
    (25_000, "0.000025"),
    (50_000, "0.00005"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (5_000_000, "0.005"),
    (25_000_000, "0.025"),
    (100_000_000, "0.1"),
    (1_000_000_000, "1"),
    (10_000_000_000, "10"),
];

/// When something was, in nanoseconds of the clock that never goes back. The standard library's type for
/// it takes as many instructions, on a page of their own, as all else that is counted of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn now() -> Self {
        // There always is this clock, and it began when the machine did.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or(TimeSpec::new(0, 0));
        let seconds = now.tv_sec().cast_unsigned().saturating_mul(1_000_000_000);
        Self(seconds.saturating_add(now.tv_nsec().cast_unsigned()))
    }
}

/// The counters of one queue. Only the thread of its ring changes them.
#[derive(Debug, Default)]
pub(crate) struct QueueMetrics {
    requests: AtomicU64,
    errors: AtomicU64,
    readable_bytes: AtomicU64,
    writable_bytes: AtomicU64,
    throttled: AtomicU64,
    /// How many took no longer than each bound, and longer than the one before it.
    latency: [AtomicU64; BOUNDS.len()],
    latency_nanoseconds: AtomicU64,
}

impl QueueMetrics {
    /// A chain that came at `taken` was completed just `now`. Chains that are taken one after the
    /// other share the time of the first, so that what the device does in between counts for all of
    /// them; and those that are completed together share the time of that.
    pub(crate) fn completed(&self, taken: Moment, now: Moment, readable: u64, written: u32) {
        add(&self.requests, 1);
        add(&self.readable_bytes, readable);
        add(&self.writable_bytes, written.into());
        self.took(now.0.saturating_sub(taken.0));
    }

    /// A request failed.
    pub(crate) fn failed(&self) {
        add(&self.errors, 1);
    }

    /// The queue waits because of a limit.
    pub(crate) fn throttled(&self) {
        add(&self.throttled, 1);
    }

    fn took(&self, nanoseconds: u64) {
        add(&self.latency_nanoseconds, nanoseconds);
        let bucket = BOUNDS.iter().zip(&self.latency).find(|((bound, _), _)| nanoseconds <= *bound);
        if let Some((_, bucket)) = bucket {
            add(bucket, 1);
        }
    }
}

/// One thread adds to each counter, so none of it is lost without a locked instruction, of which there
/// would be five for each chain.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

/// The counters of a device.
#[derive(Debug)]
pub(crate) struct Metrics {
    queues: Vec<Arc<QueueMetrics>>,
}

impl Metrics {
    /// Those of a device with so many queues.
    pub(crate) fn new(queues: u16) -> Self {
        let queues = std::iter::repeat_with(Arc::default).take(queues.into());
        Self { queues: queues.collect() }
    }

    /// Those of one queue, for who counts, so as not to come by here each time.
    pub(crate) fn queue(&self, index: u16) -> Option<Arc<QueueMetrics>> {
        self.queues.get(usize::from(index)).cloned()
    }

    /// All of them in Prometheus' text format, for the device called `device`, and `more` that it
    /// counts itself, those of one name together.
    pub(crate) fn text(&self, device: &str, more: &[Counter]) -> String {
        let mut text = String::new();
        type PerQueue = (&'static str, &'static str, fn(&QueueMetrics) -> &AtomicU64);
        let counters: [PerQueue; 5] = [
            ("requests", "Requests completed.", |queue| &queue.requests),
            ("request_errors", "Requests answered with an error.", |queue| &queue.errors),
            ("readable_bytes", "Bytes that the driver gave to completed requests.", |queue| {
                &queue.readable_bytes
            }),
            ("written_bytes", "Bytes that completed requests gave to the driver.", |queue| {
                &queue.writable_bytes
            }),
            ("throttled", "Times that the queue waited because of a limit.", |queue| {
                &queue.throttled
            }),
        ];
        for (name, help, counter) in counters {
            head(&mut text, &format!("atoll_{name}_total"), help, "counter");
            for (index, queue) in self.queues.iter().enumerate() {
                let value = counter(queue).load(Ordering::Relaxed);
                let labels = format!("device=\"{device}\",queue=\"{index}\"");
                line(&mut text, &format!("atoll_{name}_total{{{labels}}}"), &value.to_string());
            }
        }
        let name = "atoll_request_seconds";
        head(&mut text, name, "From a request's taking to its completion.", "histogram");
        for (index, queue) in self.queues.iter().enumerate() {
            let labels = format!("device=\"{device}\",queue=\"{index}\"");
            queue.histogram(&mut text, name, &labels);
        }
        let mut before = "";
        for Counter { name, help, label, value } in more {
            if *name != before {
                head(&mut text, &format!("atoll_{name}_total"), help, "counter");
                before = name;
            }
            let label = label.map_or_else(String::new, |(key, word)| format!(",{key}=\"{word}\""));
            let labels = format!("device=\"{device}\"{label}");
            line(&mut text, &format!("atoll_{name}_total{{{labels}}}"), &value.to_string());
        }
        text
    }
}

impl QueueMetrics {
    fn histogram(&self, text: &mut String, name: &str, labels: &str) {
        let mut below = 0_u64;
        for ((_, bound), bucket) in BOUNDS.iter().zip(&self.latency) {
            below = below.saturating_add(bucket.load(Ordering::Relaxed));
            line(text, &format!("{name}_bucket{{{labels},le=\"{bound}\"}}"), &below.to_string());
        }
        // The thread of the ring goes on meanwhile: never fewer than the buckets have.
        let count = self.requests.load(Ordering::Relaxed).max(below);
        line(text, &format!("{name}_bucket{{{labels},le=\"+Inf\"}}"), &count.to_string());
        let time = Duration::from_nanos(self.latency_nanoseconds.load(Ordering::Relaxed));
        line(text, &format!("{name}_sum{{{labels}}}"), &time.as_secs_f64().to_string());
        line(text, &format!("{name}_count{{{labels}}}"), &count.to_string());
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a string can't fail.
    let _always = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, value: &str) {
    let _always = writeln!(text, "{name} {value}");
}

#[cfg(test)]
#[path = "metrics_test.rs"]
mod tests;
