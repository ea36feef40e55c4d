//! A machine's answers for people.

use serde_json::json;

use super::*;

#[test]
fn a_machine_is_told_in_lines() {
    let text = info(&json!({
        "version": "0.1.0", "pid": 7, "state": "paused", "paused_by": ["user", "device disk0"],
        "cpus": 2, "memory_bytes": 536_870_912, "kernel": "/k", "boots": 1, "uptime_ms": 61_500,
        "devices": 3,
    }));
    assert_eq!(
        text,
        "state    paused (by user, device disk0)\nvCPUs    2\nmemory   512 MiB\nkernel   /k\n\
         devices  3\nboots    1\nup for   1 min 1 s\nprocess  atoll 0.1.0, pid 7\n"
    );
}

#[test]
fn devices_are_rows_with_what_is_outstanding() {
    let queue = |depth: u32, oldest: u32, owes: &str| json!({ "depth": depth, "oldest_ms": oldest, "owes": owes });
    let text = devices(&json!([
        {
            "id": "disk0", "type": "blk", "state": "active", "policy": "wait", "recoveries": 2,
            "peer": { "name": "its own process", "command": "atoll-blk", "pid": 4712 },
            "queues": [queue(0, 0, "nobody"), queue(3, 1250, "backend"), queue(1, 10, "guest")],
        },
        {
            "id": "fs", "type": "fs", "state": "lost", "policy": "pause:30:stop", "recoveries": 0,
            "lost_for_ms": 400, "peer": { "name": "socket /fs" }, "queues": [],
        },
    ]));
    assert_eq!(
        text,
        "ID     TYPE  STATE        BACKEND           POLICY         DEPTH  OLDEST  OWES     RECOVERIES\n\
         disk0  blk   active       atoll-blk (4712)  wait           4      1.2 s   backend  2\n\
         fs     fs    lost 400 ms  socket /fs        pause:30:stop  0      -       nobody   0\n"
    );
}

#[test]
fn an_event_is_a_line_with_its_time() {
    let event = event(&json!({
        "seq": 1, "time_ms": 86_400_000_u64 * 20_000 + 3_723_004, "device": "disk0", "kind": "lost",
        "text": "the back-end was killed",
    }));
    assert_eq!(event, "01:02:03.004Z disk0      lost           the back-end was killed\n");
}

#[test]
fn an_answer_cannot_drive_the_terminal() {
    let event = event(&json!({ "kind": "x", "text": "\u{1b}[2Jgone" }));
    assert!(!event.contains('\u{1b}'), "{event:?}");
}

#[test]
fn an_answer_without_anything_is_no_panic() {
    for empty in [json!(null), json!({}), json!([{}]), json!([null])] {
        let _printed = (info(&empty), devices(&empty), event(&empty));
    }
}
