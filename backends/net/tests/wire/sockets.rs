//! Networks over Unix sockets: frames pass, and the other side may come and go.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use atoll_driver::{NetHeader, TIMEOUT, VERSION_1};
use nix::sys::signal::Signal;

use crate::frames::pattern;
use crate::line::{CTRL_VQ, GUEST_ANNOUNCE, Line, OK};
use crate::network::{self, GUEST_MAC, HOST_MAC, frame};
use crate::rig::{CSUM, GUEST_CSUM, MOMENT, MRG_RXBUF, Rig};
use crate::user::{children, has_ended};

const FEATURES: u64 = VERSION_1 | MRG_RXBUF;

fn accept(listener: &UnixListener) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) => assert!(Instant::now() < deadline, "nobody connects"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Connects, from the side of who waits at most so long for an answer.
fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

fn hear(stream: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).unwrap();
    frame
}

fn say(stream: &mut UnixStream, frame: &[u8]) {
    let length = (frame.len() as u32).to_be_bytes();
    stream.write_all(&[&length, frame].concat()).unwrap();
}

fn check(rig: &mut Rig, peer: &mut UnixStream) {
    for len in [46, 1500, 9000] {
        let to_guest = frame(GUEST_MAC, HOST_MAC, &pattern(len));
        say(peer, &to_guest);
        assert_eq!(rig.next_packet().1, to_guest);
        let to_host = frame(HOST_MAC, GUEST_MAC, &pattern(len));
        rig.send(NetHeader::default(), &to_host);
        assert_eq!(hear(peer), to_host);
    }
    rig.post(8, 1536);
}

#[test]
fn a_stream_socket_is_connected_to_whenever_somebody_serves_it() {
    if network::enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("switch.sock");
    let mut rig = Rig::serve(FEATURES, &[format!("--stream={}", path.display())]);
    assert_eq!(rig.device.offered() & (CSUM | GUEST_CSUM), 0, "nobody could finish a packet");
    rig.post(64, 1536);
    // What nobody is there for is lost.
    rig.send(NetHeader::default(), &frame(HOST_MAC, GUEST_MAC, &[1; 60]));
    let listener = UnixListener::bind(&path).unwrap();
    for _ in 0..3 {
        let mut peer = accept(&listener);
        check(&mut rig, &mut peer);
    }
    // A length that no frame can have.
    let mut peer = accept(&listener);
    peer.write_all(&[0xff; 64]).unwrap();
    let mut peer = accept(&listener);
    check(&mut rig, &mut peer);
    let keepers = children(rig.process.id());
    assert_eq!(keepers.len(), 1, "one process connects");
    rig.process.signal(Signal::SIGKILL).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while !has_ended(keepers[0]) {
        assert!(Instant::now() < deadline, "what connects lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn frames_that_come_together_after_single_ones_arrive_together() {
    if network::enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("switch.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut rig = Rig::serve(FEATURES, &[format!("--stream={}", path.display())]);
    rig.post(64, 1536);
    let mut peer = accept(&listener);
    for round in 0..8 {
        for together in [1, 1, 1, 2] {
            let frame = frame(GUEST_MAC, HOST_MAC, &pattern(46 + round));
            let said = [&(frame.len() as u32).to_be_bytes(), &*frame].concat();
            peer.write_all(&said.repeat(together)).unwrap();
            for _ in 0..together {
                assert_eq!(rig.next_packet().1, frame);
            }
        }
    }
}

#[test]
fn a_stream_socket_is_served_to_one_after_the_other() {
    if network::enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cable.sock");
    let args = [format!("--stream-server={}", path.display())];
    let mut rig = Rig::serve(FEATURES | CTRL_VQ | GUEST_ANNOUNCE, &args);
    let mut line = Line::open(&mut rig.device, 2);
    rig.post(64, 1536);
    for round in 0..3 {
        let mut peer = connect(&path);
        check(&mut rig, &mut peer);
        if round > 0 {
            assert_eq!(line.ask(&[3, 0]), OK, "to this one, which took another's place");
        }
        let mut next = connect(&path);
        let to_guest = frame(GUEST_MAC, HOST_MAC, &[round; 60]);
        say(&mut next, &to_guest);
        check(&mut rig, &mut peer);
        // The second one's turn comes with the end of the first, and nothing that it said is lost.
        drop(peer);
        assert_eq!(rig.next_packet().1, to_guest);
        assert_eq!(rig.device.config(6, 2).unwrap(), [3, 0], "to announce itself: {round}");
        assert_eq!(line.ask(&[3, 0]), OK);
        check(&mut rig, &mut next);
        // A length that no frame can have.
        next.write_all(&[0xff; 64]).unwrap();
        assert_eq!(next.read(&mut [0]).unwrap(), 0, "it is sent away");
    }
    assert!(children(rig.process.id()).is_empty(), "no other process is needed");
    rig.process.terminate().unwrap();
    assert!(!path.exists(), "the socket's file is left behind");
}

fn check_that_it_sleeps(rig: &Rig) {
    std::thread::sleep(MOMENT);
    let before = rig.process.cpu_nanoseconds().unwrap();
    std::thread::sleep(MOMENT);
    assert_eq!(rig.process.cpu_nanoseconds().unwrap(), before, "it slept all the time");
}

#[test]
fn who_connects_and_leaves_before_he_is_heard_costs_no_processor_time() {
    if network::enter().is_none() {
        return;
    }
    let to_host = frame(HOST_MAC, GUEST_MAC, &[1; 60]);
    for (said, sent) in [(&[][..], false), (&[0xff; 64], false), (&[], true)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cable.sock");
        let mut rig = Rig::serve(FEATURES, &[format!("--stream-server={}", path.display())]);
        // Without buffers nobody listens to him.
        let mut peer = connect(&path);
        peer.write_all(said).unwrap();
        drop(peer);
        if sent {
            // The transmit queue takes the connection, and loses it.
            rig.send(NetHeader::default(), &to_host);
        }
        rig.post(64, 1536);
        rig.process.wait_for_log("lost").unwrap();
        check_that_it_sleeps(&rig);
        let mut peer = connect(&path);
        check(&mut rig, &mut peer);
        drop(peer);
        check_that_it_sleeps(&rig);
        check(&mut rig, &mut connect(&path));
    }
}

#[test]
fn a_server_that_was_gone_before_it_was_heard_costs_no_processor_time() {
    if network::enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("switch.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut rig = Rig::serve(FEATURES, &[format!("--stream={}", path.display())]);
    // Without buffers nobody listens to it.
    let peer = accept(&listener);
    drop((listener, peer));
    rig.post(64, 1536);
    rig.process.wait_for_log("lost").unwrap();
    check_that_it_sleeps(&rig);
    std::fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    check(&mut rig, &mut accept(&listener));
}

#[test]
fn two_cards_are_a_cable() {
    if network::enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cable.sock");
    let mut here = Rig::serve(FEATURES, &[format!("--stream={}", path.display())]);
    let mut there = Rig::serve(FEATURES, &[format!("--stream-server={}", path.display())]);
    here.post(64, 1536);
    there.post(64, 1536);
    let to_here = frame(GUEST_MAC, HOST_MAC, &pattern(1500));
    let deadline = Instant::now() + TIMEOUT;
    // What is said before the other side is there is lost.
    while here.packet_within(Duration::from_millis(50)).is_none() {
        there.send(NetHeader::default(), &to_here);
        assert!(Instant::now() < deadline, "nothing comes through");
    }
    for len in [46, 1500] {
        let to_there = frame(HOST_MAC, GUEST_MAC, &pattern(len));
        here.send(NetHeader::default(), &to_there);
        assert_eq!(there.next_packet().1, to_there);
    }
}

#[test]
fn the_guest_announces_itself_to_a_network_that_takes_the_place_of_another() {
    if network::enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("switch.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let args = [format!("--stream={}", path.display())];
    let mut rig = Rig::serve(FEATURES | CTRL_VQ | GUEST_ANNOUNCE, &args);
    let mut line = Line::open(&mut rig.device, 2);
    rig.post(64, 1536);
    for round in 0..3 {
        let mut peer = accept(&listener);
        let to_guest = frame(GUEST_MAC, HOST_MAC, &[round; 60]);
        say(&mut peer, &to_guest);
        assert_eq!(rig.next_packet().1, to_guest);
        let announce = if round == 0 { 0 } else { 2 };
        assert_eq!(rig.device.config(6, 2).unwrap(), [1 | announce, 0], "round {round}");
        assert_eq!(line.ask(&[3, 0]), OK);
        assert_eq!(rig.device.config(6, 2).unwrap(), [1, 0], "it has done so");
    }
}

#[test]
fn a_guest_that_sends_all_the_time_hears_from_a_network_that_comes_back() {
    if network::enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("switch.sock");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut rig = Rig::serve(FEATURES, &[format!("--stream={}", path.display())]);
    rig.post(64, 1536);
    for round in 0..4 {
        let deadline = Instant::now() + TIMEOUT;
        let mut peer = loop {
            rig.send(NetHeader::default(), &frame(HOST_MAC, GUEST_MAC, &[1; 60]));
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) => assert!(Instant::now() < deadline, "nobody connects"),
            }
        };
        peer.set_nonblocking(false).unwrap();
        // Whichever queue has found the connection, both have it.
        for _ in 0..100 {
            rig.send(NetHeader::default(), &frame(HOST_MAC, GUEST_MAC, &[1; 60]));
        }
        let to_guest = frame(GUEST_MAC, HOST_MAC, &[round; 60]);
        say(&mut peer, &to_guest);
        assert_eq!(rig.next_packet().1, to_guest, "round {round}");
    }
}

#[test]
fn frames_pass_over_datagram_sockets_whoever_was_there_first() {
    if network::enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (local, remote) = (dir.path().join("card.sock"), dir.path().join("peer.sock"));
    // One that a process before left behind is of no use to anybody.
    drop(UnixDatagram::bind(&local).unwrap());
    let args = ["--dgram".into(), local.display().to_string(), remote.display().to_string()];
    let mut rig = Rig::serve(FEATURES, &args);
    rig.post(64, 1536);
    for _ in 0..3 {
        rig.send(NetHeader::default(), &frame(HOST_MAC, GUEST_MAC, &[1; 60]));
        let peer = UnixDatagram::bind(&remote).unwrap();
        peer.set_read_timeout(Some(TIMEOUT)).unwrap();
        for len in [46, 1500, 9000] {
            let to_guest = frame(GUEST_MAC, HOST_MAC, &pattern(len));
            peer.send_to(&to_guest, &local).unwrap();
            assert_eq!(rig.next_packet().1, to_guest);
            let to_host = frame(HOST_MAC, GUEST_MAC, &pattern(len));
            rig.send(NetHeader::default(), &to_host);
            let mut heard = vec![0; 70_000];
            let len = peer.recv(&mut heard).unwrap();
            assert_eq!(heard[..len], to_host);
        }
        rig.post(8, 1536);
        drop(peer);
        std::fs::remove_file(&remote).unwrap();
    }
    let (status, _) = rig.process.terminate().unwrap();
    assert!(status.success() && !local.exists());
}

/// Frames that follow a long one get headers of their own, empty ones.
fn check_headers(rig: &mut Rig, mut say: impl FnMut(&[u8])) {
    rig.post(1, 2048);
    say(&frame(GUEST_MAC, HOST_MAC, &[0xee; 1500]));
    rig.next_packet();
    // They wait for buffers, and are read one behind the other.
    (0..3).for_each(|number| say(&frame(GUEST_MAC, HOST_MAC, &[number; 60])));
    rig.post(3, 1536);
    for number in 0..3 {
        let (header, got) = rig.next_packet();
        assert_eq!(header, NetHeader { num_buffers: 1, ..NetHeader::default() });
        assert_eq!(got, frame(GUEST_MAC, HOST_MAC, &[number; 60]));
    }
}

#[test]
fn frames_that_come_without_a_header_get_an_empty_one() {
    if network::enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (local, remote) = (dir.path().join("card.sock"), dir.path().join("peer.sock"));
    let args = ["--dgram".into(), local.display().to_string(), remote.display().to_string()];
    let mut rig = Rig::serve(FEATURES, &args);
    let peer = UnixDatagram::bind(&remote).unwrap();
    check_headers(&mut rig, |frame| assert_eq!(peer.send_to(frame, &local).unwrap(), frame.len()));

    let path = dir.path().join("switch.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut rig = Rig::serve(FEATURES, &[format!("--stream={}", path.display())]);
    let mut peer = accept(&listener);
    check_headers(&mut rig, |frame| say(&mut peer, frame));
}
