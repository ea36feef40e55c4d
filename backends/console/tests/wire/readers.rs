//! Readers that fail, wait for their turn, or are slower than the guest.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use atoll_driver::TIMEOUT;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::rig::{MOMENT, Rig, command, connect, eventually, pattern, reader, terminal};

const MIB: usize = 1 << 20;

fn start() -> Rig {
    Rig::start(|dir| vec![format!("--unix={}", dir.join("tty").display())])
}

fn client(rig: &Rig) -> UnixStream {
    connect(&rig.path("tty"))
}

/// Prints more than is kept, and ends the process: it goes well, with one complaint.
fn complains_once(mut rig: Rig, complaint: &str) {
    rig.guest.print(&pattern(2 * MIB));
    let (status, stderr) = rig.process.terminate().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(stderr.matches(complaint).count(), 1, "{stderr}");
}

#[test]
fn a_file_that_takes_no_more_does_not_stop_the_guest() {
    let rig = Rig::start(|_| vec!["--file=/dev/full".into()]);
    complains_once(
        rig,
        "the console's output is no longer added to its file: No space left on device",
    );
}

#[test]
fn an_output_that_nobody_reads_any_more_does_not_stop_the_guest() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), ["--stdio"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut rig = Rig::run(dir, &mut command);
    drop(rig.process.child().stdout.take());
    complains_once(rig, "nobody reads the console's output any more: ");
}

#[test]
fn sixteen_clients_are_served_and_the_next_one_when_another_leaves() {
    let mut rig = start();
    let mut clients = Vec::from_iter((0..16).map(|_| client(&rig)));
    rig.guest.print(b"!");
    for client in &mut clients {
        client.read_exact(&mut [0]).unwrap();
    }
    let mut next = client(&rig);
    next.set_read_timeout(Some(MOMENT)).unwrap();
    assert_eq!(next.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "it waits");
    drop(clients.pop());
    next.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut got = [0];
    next.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"!");
}

#[test]
fn who_has_left_takes_nobodys_place_and_what_it_typed_comes_in_its_turn() {
    let mut rig = start();
    let mut first = client(&rig);
    let attach = |rig: &mut Rig, keys: &[u8]| {
        rig.guest.print(b"!");
        let mut next = client(rig);
        next.read_exact(&mut [0]).unwrap();
        next.write_all(keys).unwrap();
        next
    };
    // Three times as many as there may be at once; most have nothing to say.
    for number in 0..48 {
        let keys: &[u8] = if number % 16 == 7 { b"lost" } else { b"" };
        drop(attach(&mut rig, keys));
    }
    // And more who have than are remembered: the last of them are.
    for number in 0..20 {
        drop(attach(&mut rig, &[b'A' + number]));
    }
    let _last = attach(&mut rig, b"last");
    first.write_all(b"first ").unwrap();
    assert_eq!(rig.guest.read(6), b"first ");
    drop(first);
    assert_eq!(rig.guest.read(20), b"EFGHIJKLMNOPQRSTlast");
}

/// Somebody who tells its window's size a number of times, and with it hands over its terminal, whose
/// other end is returned.
fn onlooker(rig: &mut Rig, sizes: usize) -> (UnixStream, OwnedFd) {
    rig.guest.print(b"!");
    let mut client = client(rig);
    client.read_exact(&mut [0]).unwrap();
    let terminal = terminal(20, 10);
    for _ in 0..sizes {
        client.send_with_fd(&b"x"[..], terminal.slave.as_raw_fd()).unwrap();
    }
    (client, terminal.master)
}

/// Whether nobody has the other end any more.
fn is_closed(terminal: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(terminal.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).unwrap() > 0
}

/// One who types and leaves while another is attached, then those who do `visit`: they take no place.
fn visited(mut visit: impl FnMut(&mut Rig)) {
    let mut rig = start();
    let mut first = client(&rig);
    rig.guest.print(b"!");
    first.read_exact(&mut [0]).unwrap();
    let (mut author, window) = (client(&rig), terminal(132, 43));
    author.send_with_fd(&b"x"[..], window.slave.as_raw_fd()).unwrap();
    author.write_all(b"by one who has left").unwrap();
    drop(author);
    for _ in 0..20 {
        visit(&mut rig);
    }
    first.write_all(b"first ").unwrap();
    assert_eq!(rig.guest.read(6), b"first ");
    assert_eq!(rig.guest.size(), (0, 0), "nobody who has typed so far has told it");
    drop(first);
    assert_eq!(rig.guest.read(19), b"by one who has left");
    assert_eq!(rig.guest.size(), (132, 43), "that of who typed this");
    let (status, stderr) = rig.process.terminate().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn who_tells_its_window_and_leaves_takes_no_place_of_who_has_typed() {
    visited(|rig| {
        let (client, terminal) = onlooker(rig, 5);
        assert!(!is_closed(&terminal));
        drop(client);
        eventually("its terminal to be let go", || is_closed(&terminal).then_some(()));
    });
}

#[test]
fn who_stops_reading_before_it_leaves_takes_no_place_either() {
    visited(|rig| {
        let (client, terminal) = onlooker(rig, 1);
        client.shutdown(Shutdown::Read).unwrap();
        // It is found out that it does not read, and that it may still type.
        rig.guest.print(b"!");
        eventually("its terminal to be let go", || is_closed(&terminal).then_some(()));
    });
}

#[test]
fn a_slow_reader_gets_the_rest_though_the_guest_has_gone() {
    let mut rig = start();
    let client = client(&rig);
    // More than its socket takes; the rest is kept.
    let out = pattern(300 << 10);
    rig.guest.print(&out);
    rig.guest.device.disconnect();
    // All that the process has to do with this front-end is done when it answers another.
    drop(rig.reconnect());
    assert!(reader(client, out.len()).join().unwrap() == out, "the output differs");
}

#[test]
fn a_slow_reader_gets_the_last_words_of_a_process_that_ends() {
    let mut rig = start();
    let client = client(&rig);
    let last = pattern(300 << 10);
    rig.guest.print(&last);
    rig.process.signal(Signal::SIGTERM).unwrap();
    // Which is when it serves nobody any more.
    eventually("the end of service", || (!rig.path("front-end.sock").exists()).then_some(()));
    assert!(reader(client, last.len()).join().unwrap() == last, "the output differs");
    let (status, stderr) = rig.process.wait().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_reader_that_sleeps_does_not_keep_the_process_from_ending() {
    let mut rig = start();
    let _asleep = client(&rig);
    rig.guest.print(&pattern(300 << 10));
    let (status, stderr) = rig.process.terminate().unwrap();
    assert!(status.success(), "{status}");
    assert!(stderr.contains("the console's last output found no reader"), "{stderr}");
}
