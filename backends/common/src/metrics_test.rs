//! Counters, and what they are as text.

use super::*;

#[test]
fn a_queue_counts_for_itself() {
    let (metrics, now) = (Metrics::new(2), Moment::now());
    metrics.queue(1).unwrap().completed(now, now, 16, 513);
    metrics.queue(1).unwrap().failed();
    let text = metrics.text("blk", &[]);
    for line in [
        "atoll_requests_total{device=\"blk\",queue=\"0\"} 0",
        "atoll_requests_total{device=\"blk\",queue=\"1\"} 1",
        "atoll_readable_bytes_total{device=\"blk\",queue=\"1\"} 16",
        "atoll_written_bytes_total{device=\"blk\",queue=\"1\"} 513",
        "atoll_request_errors_total{device=\"blk\",queue=\"1\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(metrics.queue(2).is_none());
}

#[test]
fn a_histogram_counts_what_is_below_each_bound() {
    let queue = QueueMetrics::default();
    for nanoseconds in [10_000, 10_001, 20_000_000_000] {
        queue.took(nanoseconds);
        add(&queue.requests, 1);
    }
    let mut text = String::new();
    queue.histogram(&mut text, "t", "q=\"0\"");
    let values: Vec<_> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(values[..2], ["1", "2"]);
    assert_eq!(values[11..], ["2", "3", "20.000020001", "3"]);
}
