//! Messages on a socket, good and bad.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test, as it should")]

use std::io::{Read, Write};
use std::time::Duration;

use super::*;

fn pair() -> (Wire, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Wire::new(ours).unwrap(), theirs)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(200)
}

fn bytes(request: u32, flags: u32, size: u32, body: &[u8]) -> Vec<u8> {
    let header = [request, flags, size];
    header.iter().flat_map(|word| word.to_le_bytes()).chain(body.iter().copied()).collect()
}

#[test]
fn a_message_goes_out_as_the_specification_has_it() {
    let (wire, mut theirs) = pair();
    wire.send(24, FLAG_NEED_REPLY, &[1, 2, 3], &[], soon()).unwrap();
    let mut got = [0; 15];
    theirs.read_exact(&mut got).unwrap();
    assert_eq!(got.to_vec(), bytes(24, 0x9, 3, &[1, 2, 3]));
}

#[test]
fn messages_come_one_by_one_however_they_are_cut() {
    let (wire, mut theirs) = pair();
    let both = [bytes(1, 0x5, 8, &[7; 8]), bytes(2, 0x5, 0, &[])].concat();
    let sender = std::thread::spawn(move || {
        for byte in both {
            theirs.write_all(&[byte]).unwrap();
        }
        theirs
    });
    let message = wire.receive(soon()).unwrap();
    assert_eq!((message.request, message.flags, message.body), (1, 0x5, vec![7; 8]));
    assert_eq!(wire.receive(soon()).unwrap().request, 2);
    drop(sender.join().unwrap());
    assert!(matches!(wire.receive(soon()), Err(WireError::Closed)));
}

#[test]
fn descriptors_come_with_their_message_and_too_many_are_refused() {
    let (wire, theirs) = pair();
    let other = Wire::new(theirs).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    other.send(1, 0, &[0; 4], &[null.as_fd(), null.as_fd()], soon()).unwrap();
    assert_eq!(wire.receive(soon()).unwrap().fds.len(), 2);
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..100 {
        other.send(1, 0, &[], &[null.as_fd(); 200], soon()).unwrap();
        assert!(matches!(wire.receive(soon()), Err(WireError::Garbage(_))));
    }
    // Other tests open and close descriptors as well, but not twenty thousand.
    assert!(open() < before + 1000, "descriptors leak");
}

#[test]
fn what_is_no_message_is_refused_without_reading_on() {
    for (bad, what) in [
        (bytes(1, 0x4, 0, &[]), "version 0"),
        (bytes(1, 0x6, 0, &[]), "version 2"),
        (bytes(1, 0x5, 0x1001, &[]), "too long"),
        (b"HTTP/1.1 200 OK\r\n".to_vec(), "another protocol"),
    ] {
        let (wire, mut theirs) = pair();
        theirs.write_all(&bad).unwrap();
        assert!(matches!(wire.receive(soon()), Err(WireError::Garbage(_))), "{what}");
    }
}

#[test]
fn half_a_message_and_silence_end_at_the_deadline() {
    let halves = [Vec::new(), vec![1; 4], bytes(1, 0x5, 8, &[1, 2])];
    for half in halves {
        let (wire, mut theirs) = pair();
        theirs.write_all(&half).unwrap();
        let start = Instant::now();
        assert!(matches!(wire.receive(soon()), Err(WireError::TimedOut)));
        assert!(start.elapsed() >= Duration::from_millis(190));
        drop(theirs);
        assert!(matches!(wire.receive(soon()), Err(WireError::Closed)));
    }
}

#[test]
fn a_peer_that_does_not_read_ends_sending_at_the_deadline() {
    let (wire, _theirs) = pair();
    let body = vec![0; 0x1000];
    let deadline = soon();
    let error = std::iter::repeat_with(|| wire.send(1, 0, &body, &[], deadline))
        .find_map(Result::err)
        .unwrap();
    assert!(matches!(error, WireError::TimedOut), "{error:?}");
}

#[test]
fn sending_to_nobody_is_an_error_and_no_signal() {
    let (wire, theirs) = pair();
    drop(theirs);
    assert!(matches!(wire.send(1, 0, &[], &[], soon()), Err(WireError::Closed)));
}
