//! Clients that ask much and read little.

use std::io::{Read, Write};

use super::*;
use crate::message;

/// Once around; how many requests were answered, each with `body`.
fn turn(clients: &mut Clients, body: &str) -> usize {
    let mut answered = 0;
    for (key, how) in clients.sleep(None, &[], Some(Instant::now())) {
        clients.hear(key, how);
        while let Some(client) = clients.get_mut(key) {
            match client.take_request() {
                Ok(Some(_)) => {
                    client.answer(&message::text("text/plain", body, false));
                    answered += 1;
                }
                _ => break,
            }
        }
        clients.dismiss_if_done(key);
    }
    clients.settle();
    answered
}

#[test]
fn who_asks_and_does_not_read_gets_one_answer_at_a_time_and_in_the_end_all() {
    const ASKED: usize = 1000;
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut clients = Clients::default();
    clients.adopt(ours).unwrap();
    let body = "x".repeat(1 << 20);
    theirs.write_all("GET / HTTP/1.1\r\n\r\n".repeat(ASKED).as_bytes()).unwrap();
    let mut answered: usize = (0..100).map(|_| turn(&mut clients, &body)).sum();
    assert!(answered < 5, "{answered} answers of 1 MiB for nobody");
    theirs.set_nonblocking(true).unwrap();
    let (mut bytes, mut chunk) = (0, vec![0; 1 << 20]);
    while bytes < ASKED * body.len() {
        answered += turn(&mut clients, &body);
        while let Ok(count) = theirs.read(&mut chunk) {
            assert_ne!(count, 0, "closed after {answered} answers");
            bytes += count;
        }
    }
    assert_eq!(answered, ASKED);
}

#[test]
fn who_leaves_with_answers_on_their_way_is_forgotten() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut clients = Clients::default();
    clients.adopt(ours).unwrap();
    theirs.write_all("GET / HTTP/1.1\r\n\r\n".repeat(10).as_bytes()).unwrap();
    turn(&mut clients, &"x".repeat(1 << 20));
    drop(theirs);
    turn(&mut clients, "");
    assert!(clients.is_empty());
}
