//! Processes at the other end of a line: good ones, silent ones, liars.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use atoll_http::{Status, Unserved, json, refuse, take_request};

use super::*;

/// A line to a child that gives `answers`, one for each question; and what it was asked.
fn child(answers: Vec<Vec<u8>>) -> (ControlLine, thread::JoinHandle<Vec<String>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let line = ControlLine::to_child("atoll-blk", Settings::default());
    line.connect(ours).unwrap();
    (line, thread::spawn(move || answer(theirs, answers)))
}

fn answer(mut stream: UnixStream, answers: Vec<Vec<u8>>) -> Vec<String> {
    let (mut bytes, mut asked) = (Vec::new(), Vec::new());
    for answer in answers {
        let request = loop {
            if let Some(request) = take_request(&mut bytes).unwrap() {
                break request;
            }
            let mut chunk = [0; 256];
            let count = stream.read(&mut chunk).unwrap();
            bytes.extend(&chunk[..count]);
        };
        let body = String::from_utf8(request.body).unwrap();
        asked.push(format!("{} {} {body}", request.method, request.path));
        stream.write_all(&answer).unwrap();
    }
    asked
}

fn no(status: Status, why: &str) -> Vec<u8> {
    refuse(&Unserved::new(status, why), false)
}

#[test]
fn what_is_set_is_asked_of_the_process_and_kept_for_the_next() {
    let limits = serde_json::json!({ "bps": 7, "bps_burst": 0, "evil": 1 });
    let (line, child) = child(vec![
        json(Status::Ok, &limits, false),
        json(Status::Ok, &json!({"up": false}), false),
    ]);
    assert_eq!(line.limit(&[("bps", 7)].into()).unwrap(), [("bps", 7), ("bps_burst", 0)].into());
    line.link(false).unwrap();
    assert_eq!(
        child.join().unwrap(),
        [r#"PATCH /limits {"bps":7}"#, r#"PATCH /link {"up":false}"#]
    );
    assert_eq!(line.hang_up(), ["--limit-bps=7", "--link=down"]);
}

#[test]
fn what_is_refused_is_not_kept_and_the_reason_is_fit_to_print() {
    let (line, child) = child(vec![
        no(Status::BadRequest, "no\x1b[31m!\n"),
        no(Status::Conflict, &"x".repeat(10_000)),
        json(Status::Conflict, &7, false),
        json(Status::Ok, &"big", false),
    ]);
    let error = line.limit(&[("bps", 7)].into()).unwrap_err();
    assert!(matches!(&error, LineError::Wrong(why) if why == "no [31m! "), "{error:?}");
    let error = line.link(false).unwrap_err();
    assert!(matches!(&error, LineError::Refused(why) if why.len() == SENTENCE), "{error:?}");
    assert!(matches!(line.metrics().unwrap_err(), LineError::Answer { .. }));
    assert!(matches!(line.resize(Some(512)).unwrap_err(), LineError::Answer { .. }));
    child.join().unwrap();
    assert!(line.hang_up().is_empty());
}

#[test]
fn a_process_that_has_ended_or_hangs_is_named() {
    let (line, child) = child(vec![]);
    child.join().unwrap();
    for _ in 0..2 {
        assert_eq!(line.limits().unwrap_err().to_string(), "its atoll-blk is not there now");
    }
    let (ours, _silent) = UnixStream::pair().unwrap();
    line.hang_up();
    assert_eq!(line.limits().unwrap_err().to_string(), "its atoll-blk is not there now");
    line.connect(ours).unwrap();
    assert_eq!(line.limits().unwrap_err().to_string(), "its atoll-blk can't be asked");
}

#[test]
fn a_socket_is_connected_to_for_each_question() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let line = ControlLine::to_socket(path.clone());
    let error = line.metrics().unwrap_err().to_string();
    assert_eq!(error, format!("can't reach its control socket {}", path.display()));
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        for _ in 0..2 {
            answer(
                listener.accept().unwrap().0,
                vec![atoll_http::text("text/plain", "a 1\n", true)],
            );
        }
    });
    for _ in 0..2 {
        assert_eq!(line.metrics().unwrap(), "a 1\n");
    }
    server.join().unwrap();
}
