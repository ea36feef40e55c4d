//! Numbering, keeping and missing events.

use serde_json::{Value, json};

use super::*;

fn log(events: u64) -> EventLog {
    let log = EventLog::new().unwrap();
    for number in 1..=events {
        log.publish(&json!({ "kind": "test", "text": number.to_string() }));
    }
    log
}

fn numbers(lines: &[Line]) -> Vec<u64> {
    let values = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    values.map(|value| value["seq"].as_u64().unwrap()).collect()
}

#[test]
fn an_event_is_a_line_with_its_number_its_time_and_its_own_fields() {
    let log = log(1);
    let (lines, last) = log.after(0).unwrap();
    assert!(lines[0].ends_with("}\n"));
    let value: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((last, &value["seq"], &value["kind"]), (1, &json!(1), &json!("test")));
    assert!(value["time_ms"].as_u64().unwrap() > 1_600_000_000_000);
}

#[test]
fn a_reader_gets_what_it_has_not_seen_and_nothing_twice() {
    let log = log(3);
    let (lines, last) = log.after(1).unwrap();
    assert_eq!(numbers(&lines), [2, 3]);
    assert_eq!(log.after(last).unwrap(), (vec![], 3));
    assert_eq!(log.after(1000).unwrap(), (vec![], 1000));
}

#[test]
fn the_last_256_events_are_kept() {
    let log = log(300);
    assert_eq!(log.forgotten(), 44);
    assert_eq!(log.after(44).unwrap().0.len(), 256);
    assert_eq!(log.after(43), Err(Missed));
}
