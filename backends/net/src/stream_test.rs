use std::io::Write;
use std::os::unix::net::UnixStream;

use atoll_backend::Received;

use super::{Connection, HEADER, INBOX, MAX_FRAME};

fn pair() -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Connection::new(ours), theirs)
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

#[test]
fn frames_come_out_as_they_were_cut_however_they_arrive() {
    let (connection, mut peer) = pair();
    let frames: Vec<Vec<u8>> = (1..60_u8).map(|n| vec![n; usize::from(n) * 20]).collect();
    let bytes: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
    let mut packet = vec![0xff; HEADER + MAX_FRAME];
    let mut got = Vec::new();
    for piece in bytes.chunks(777) {
        peer.write_all(piece).unwrap();
        while let Some(Received { placed: 0, spilled }) = connection.read(&mut packet).unwrap() {
            assert_eq!(packet[..HEADER], [0; HEADER]);
            got.push(packet[HEADER..spilled].to_vec());
        }
    }
    assert!(got == frames);
}

#[test]
fn the_largest_frame_fits_twice() {
    const { assert!(INBOX >= 2 * (MAX_FRAME + 4)) };
}

#[test]
fn a_length_that_no_frame_has_and_a_peer_that_left_end_the_connection() {
    let mut packet = vec![0; HEADER + MAX_FRAME];
    let (connection, mut peer) = pair();
    peer.write_all(&u32::MAX.to_be_bytes()).unwrap();
    assert_eq!(
        connection.read(&mut packet).unwrap_err().to_string(),
        "a frame of 4294967295 bytes, where at most 65553 are possible"
    );
    let (connection, peer) = pair();
    drop(peer);
    assert!(connection.read(&mut packet).is_err());
}
