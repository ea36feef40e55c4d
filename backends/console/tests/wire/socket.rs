//! `--unix`: clients that come, read, type and go.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use atoll_driver::{Buffer, EVENT_IDX, FrontEnd, Memory, TIMEOUT};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::rig::{
    F_SIZE, Guest, MOMENT, RECEIVE, Rig, TRANSMIT, connect, eventually, pattern, reader, terminal,
};

const MIB: usize = 1 << 20;

fn start() -> Rig {
    Rig::start(|dir| vec![format!("--unix={}", dir.join("tty").display())])
}

fn client(rig: &Rig) -> UnixStream {
    connect(&rig.path("tty"))
}

/// A client that is known to be attached.
fn attached(rig: &mut Rig) -> UnixStream {
    let mut client = client(rig);
    rig.guest.print(b"!");
    let mut mark = [0];
    client.read_exact(&mut mark).unwrap();
    assert_eq!(&mark, b"!");
    client
}

#[test]
fn megabytes_pass_both_ways_unchanged() {
    let mut rig = start();
    let client = client(&rig);
    let (out, mut typing) = (pattern(2 * MIB), client.try_clone().unwrap());
    let reading = reader(client, out.len());
    let writing = thread::spawn(move || typing.write_all(&pattern(2 * MIB)).unwrap());
    // One after the other here; on the wire both are under way at the same time.
    rig.guest.print(&out);
    assert!(reading.join().unwrap() == out, "the output differs");
    assert!(rig.guest.read(2 * MIB) == pattern(2 * MIB), "the input differs");
    writing.join().unwrap();
    rig.terminate();
}

#[test]
fn output_is_kept_until_somebody_comes() {
    let mut rig = start();
    rig.guest.print(b"kept while nobody looks\n");
    let mut client = client(&rig);
    let mut got = [0; 24];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"kept while nobody looks\n");
}

#[test]
fn what_is_kept_is_bounded_and_the_newest() {
    let mut rig = start();
    let out = pattern(3 * MIB);
    rig.guest.print(&out);
    let anonymous = rig.process.anonymous_kib().unwrap();
    assert!(anonymous <= 1536, "{anonymous} KiB of heap and stacks");
    let mut client = client(&rig);
    client.set_read_timeout(Some(MOMENT)).unwrap();
    let mut got = Vec::new();
    let end = client.read_to_end(&mut got).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::WouldBlock);
    assert!((32 << 10..=512 << 10).contains(&got.len()), "{} bytes were kept", got.len());
    assert!(out.ends_with(&got), "they are not the newest, or not in order");
}

#[test]
fn what_readers_miss_is_counted() {
    let mut rig = Rig::start(|dir| {
        let option = |name: &str, file: &str| format!("--{name}={}", dir.join(file).display());
        vec![option("unix", "tty"), option("control-socket", "control")]
    });
    let control = rig.path("control");
    let missed = || {
        let mut client = connect(&control);
        client.write_all(b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        let name = "\natoll_console_missed_bytes_total{device=\"console\"} ";
        let value = answer.split_once(name).unwrap().1.lines().next().unwrap();
        value.parse::<usize>().unwrap()
    };
    assert_eq!(missed(), 0);
    rig.guest.print(&pattern(MIB));
    let mut client = client(&rig);
    client.set_read_timeout(Some(MOMENT)).unwrap();
    let mut got = Vec::new();
    let _silence = client.read_to_end(&mut got).unwrap_err();
    assert!(!got.is_empty());
    assert_eq!(missed(), MIB - got.len());
}

#[test]
fn a_slow_reader_loses_nothing() {
    let mut rig = start();
    let out = pattern(MIB);
    let mut client = attached(&mut rig);
    let expected = out.clone();
    let reading = thread::spawn(move || {
        let mut got = Vec::new();
        let mut piece = vec![0; 200 << 10];
        while got.len() < expected.len() {
            thread::sleep(MOMENT);
            let count = client.read(&mut piece).unwrap();
            got.extend_from_slice(&piece[..count]);
        }
        assert!(got == expected, "the output differs");
    });
    rig.guest.print(&out);
    reading.join().unwrap();
}

#[test]
fn a_client_may_leave_and_the_next_one_gets_what_it_missed() {
    let mut rig = start();
    for _ in 0..3 {
        drop(attached(&mut rig));
        thread::sleep(MOMENT);
        rig.guest.print(b"in between;");
        let mut next = client(&rig);
        let mut got = [0; 11];
        next.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"in between;");
    }
}

#[test]
fn a_client_that_has_said_all_still_reads() {
    let mut rig = start();
    let mut client = client(&rig);
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.guest.read(10), b"last words");
    rig.guest.print(b"answer");
    let mut got = [0; 6];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"answer");
}

#[test]
fn what_is_typed_before_the_guest_is_there_arrives() {
    let mut rig = start();
    // Another front-end is answered when the rings of the one before have stopped.
    let other = rig.reconnect();
    let mut client = client(&rig);
    client.write_all(b"root\n").unwrap();
    thread::sleep(MOMENT);
    other.disconnect();
    rig.reattach();
    assert_eq!(rig.guest.read(5), b"root\n");
}

#[test]
fn the_guest_may_go_and_come_back_under_an_attached_client() {
    let mut rig = start();
    let mut client = attached(&mut rig);
    for _ in 0..5 {
        rig.reattach();
        rig.guest.print(b"boot");
        let mut got = [0; 4];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"boot");
        client.write_all(b"key").unwrap();
        assert_eq!(rig.guest.read(3), b"key");
    }
}

#[test]
fn typing_stops_at_a_guest_that_does_not_read() {
    let rig = start();
    rig.guest.device.disconnect();
    let mut client = client(&rig);
    client.set_write_timeout(Some(MOMENT)).unwrap();
    let flood = vec![b'x'; 8 * MIB];
    let end = client.write_all(&flood).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::WouldBlock, "the flood is held back");
    let anonymous = rig.process.anonymous_kib().unwrap();
    assert!(anonymous <= 1024, "{anonymous} KiB of heap and stacks");
    let before = rig.process.cpu_nanoseconds().unwrap();
    thread::sleep(MOMENT);
    let spent = rig.process.cpu_nanoseconds().unwrap() - before;
    assert!(spent < 5_000_000, "{spent} ns of work though there is nothing to do");
}

#[test]
fn sigterm_lets_the_last_words_out_and_removes_the_socket() {
    let mut rig = start();
    let client = attached(&mut rig);
    let last = pattern(50 << 10);
    rig.guest.print(&last);
    let reading = reader(client, last.len());
    rig.terminate();
    assert!(reading.join().unwrap() == last, "the output differs");
    assert!(!rig.path("tty").exists(), "its file is removed");
}

#[test]
fn at_rest_it_costs_no_processor_time_and_little_memory() {
    let mut rig = start();
    let _client = attached(&mut rig);
    thread::sleep(MOMENT);
    let before = rig.process.cpu_nanoseconds().unwrap();
    thread::sleep(3 * MOMENT);
    assert_eq!(rig.process.cpu_nanoseconds().unwrap(), before, "it slept all the time");
    let anonymous = rig.process.anonymous_kib().unwrap();
    assert!(anonymous <= 1024, "{anonymous} KiB of heap and stacks");
    if cfg!(not(debug_assertions)) {
        let private = rig.process.private_kib().unwrap();
        assert!(private <= 3 * 1024, "{private} KiB of private memory");
    }
}

#[test]
fn a_hundred_clients_leave_nothing_behind() {
    let mut rig = start();
    drop(attached(&mut rig));
    thread::sleep(MOMENT);
    let files = rig.process.open_files().unwrap();
    for _ in 0..100 {
        drop(client(&rig));
    }
    eventually("all descriptors closed", || {
        (rig.process.open_files().unwrap() == files).then_some(())
    });
    drop(attached(&mut rig));
}

#[test]
fn all_clients_read_and_the_first_types() {
    let mut rig = start();
    let mut first = attached(&mut rig);
    let mut second = client(&rig);
    let mut seen = [0];
    second.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"!", "who joins sees what there was");
    rig.guest.print(b"both");
    for client in [&mut first, &mut second] {
        let mut got = [0; 4];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"both");
    }
    second.write_all(b"later").unwrap();
    thread::sleep(MOMENT);
    first.write_all(b"now").unwrap();
    assert_eq!(rig.guest.read(3), b"now");
    drop(first);
    assert_eq!(rig.guest.read(5), b"later");
}

#[test]
fn a_client_that_reads_nothing_stops_neither_the_guest_nor_the_others() {
    let mut rig = start();
    let asleep = attached(&mut rig);
    let awake = client(&rig);
    let out = pattern(4 * MIB);
    let reading = reader(awake, 1 + out.len());
    rig.guest.print(&out);
    assert!(reading.join().unwrap()[1..] == out, "the output differs");
    drop(asleep);
}

#[test]
fn with_replay_a_client_gets_what_another_has_read() {
    let mut rig =
        Rig::start(|dir| vec![format!("--unix={}", dir.join("tty").display()), "--replay".into()]);
    drop(attached(&mut rig));
    thread::sleep(MOMENT);
    let mut next = client(&rig);
    let mut got = [0];
    next.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"!");
}

#[test]
fn a_hundred_polite_clients_during_output_lose_and_double_nothing() {
    let mut rig = start();
    let path = rig.path("tty");
    // More than a hundred clients can get as it is paced below.
    let out = pattern(16 * MIB);
    let expected = out.clone();
    let (read, mut printed) = (Arc::new(AtomicUsize::new(0)), 0_usize);
    let count_read = Arc::clone(&read);
    let reading = thread::spawn(move || {
        let mut got: Vec<u8> = Vec::new();
        let mut piece = vec![0; 20_000];
        for _ in 0..100 {
            let mut client = connect(&path);
            let count = client.read(&mut piece).unwrap();
            got.extend_from_slice(&piece[..count]);
            // No more for this one; but what was sent to it is its own.
            client.shutdown(Shutdown::Read).unwrap();
            client.read_to_end(&mut got).unwrap();
            count_read.store(got.len(), Ordering::Relaxed);
        }
        let mut last = connect(&path);
        let mut rest = vec![0; expected.len() - got.len()];
        let (first, others) = rest.split_at_mut(1);
        last.read_exact(first).unwrap();
        // It is attached, so the guest waits for it.
        count_read.store(usize::MAX, Ordering::Relaxed);
        last.read_exact(others).unwrap();
        got.extend(rest);
        assert!(got == expected, "the output differs");
    });
    for piece in out.chunks(20_000) {
        // Never more than is kept while nobody is attached, but for the last client.
        eventually("somebody to read", || {
            let ahead = printed.saturating_sub(read.load(Ordering::Relaxed));
            (ahead < 100_000).then_some(())
        });
        rig.guest.print(piece);
        printed += piece.len();
    }
    reading.join().unwrap();
}

#[test]
fn sixty_four_mebibytes_pass_each_way_at_the_same_time() {
    const ALL: usize = 64 * MIB;
    let mut rig = start();
    let client = client(&rig);
    let (bytes, mut typing) = (Arc::new(pattern(ALL)), client.try_clone().unwrap());
    let expected = Arc::clone(&bytes);
    let reading = thread::spawn(move || {
        let (mut client, mut piece, mut at) = (client, vec![0; MIB], 0);
        while at < ALL {
            let count = client.read(&mut piece).unwrap();
            assert!(count > 0 && expected[at..].starts_with(&piece[..count]), "it differs at {at}");
            at += count;
        }
    });
    let keys = Arc::clone(&bytes);
    let writing = thread::spawn(move || typing.write_all(&keys).unwrap());
    let (mut typed, mut printed) = (0, 0);
    for piece in bytes.chunks(64 << 10) {
        rig.guest.print(piece);
        printed += piece.len();
        // It may be a little more than asked for.
        while typed < printed {
            let more = rig.guest.read(printed - typed);
            assert!(bytes[typed..].starts_with(&more), "the input differs behind {typed}");
            typed += more.len();
        }
    }
    assert_eq!(typed, ALL);
    reading.join().unwrap();
    writing.join().unwrap();
    rig.terminate();
}

#[test]
fn bytes_wake_no_thread_but_that_of_their_ring() {
    let mut rig = start();
    let mut client = attached(&mut rig);
    // The line's thread may have waited for keys since before there was a ring for them.
    client.write_all(b"!").unwrap();
    assert_eq!(rig.guest.read(1), b"!");
    thread::sleep(MOMENT);
    let before = rig.switches_of("line");
    let bytes = pattern(256 << 10);
    for piece in bytes.chunks(1 << 10) {
        rig.guest.print(piece);
        let mut got = vec![0; piece.len()];
        client.read_exact(&mut got).unwrap();
        client.write_all(&got).unwrap();
        assert!(rig.guest.read(piece.len()) == piece);
    }
    // And a reader that has to be waited for.
    let slow = reader(client, 4 * MIB);
    rig.guest.print(&pattern(4 * MIB));
    slow.join().unwrap();
    let woken = rig.switches_of("line") - before;
    assert!(woken < 8, "the line's thread woke {woken} times");
}

#[test]
fn who_types_and_leaves_at_a_guest_that_takes_no_keys_keeps_nobody_out() {
    let mut rig = start();
    let mut device = rig.reconnect();
    // No buffer for keys is made available.
    let _receive = device.start_queue(RECEIVE, 64).unwrap();
    let mut transmit = device.start_queue(TRANSMIT, 64).unwrap();
    for _ in 0..40 {
        client(&rig).write_all(b"key").unwrap();
    }
    let mut last = client(&rig);
    let address = device.memory().put(b"news").unwrap();
    transmit.submit(&[Buffer::readable(address, 4)]).unwrap();
    transmit.wait(TIMEOUT).unwrap();
    let mut got = [0; 4];
    last.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"news");
}

#[test]
fn a_driver_that_keeps_most_of_its_buffers_gets_all_keys_all_the_same() {
    let rig = start();
    rig.guest.device.disconnect();
    let memory = Memory::new(1 << 20).unwrap();
    let device = FrontEnd::connect(rig.path("front-end.sock"), memory.clone()).unwrap();
    let mut guest = Guest::negotiate(device, EVENT_IDX);
    let typed = pattern(64 << 10);
    client(&rig).write_all(&typed).unwrap();
    // All of the first ones, and from then on the same one again and again.
    let mut got = Vec::new();
    for _ in 0..16 {
        let (_address, bytes) = guest.take_keys();
        got.extend(bytes);
    }
    let address = memory.allocate(1 << 10, 1).unwrap();
    while got.len() < typed.len() {
        guest.post(address);
        got.extend(guest.take_keys().1);
    }
    assert!(got == typed, "the input differs");
}

#[test]
fn a_clients_terminal_tells_the_window_and_its_byte_is_no_key() {
    let mut rig = start();
    assert_eq!(rig.guest.device.features() & F_SIZE, F_SIZE);
    assert_eq!(rig.guest.size(), (0, 0), "it is not known");
    let mut client = attached(&mut rig);
    for round in 0..5 {
        let size = (132 + round, 43 + round);
        client.write_all(b"before").unwrap();
        let terminal = terminal(size.0, size.1);
        client.send_with_fd(&b"x"[..], terminal.slave.as_raw_fd()).unwrap();
        client.write_all(b"after").unwrap();
        while rig.guest.size() != size {
            rig.guest.device.wait_config_change(TIMEOUT).unwrap();
        }
        assert_eq!(rig.guest.read(11), b"beforeafter");
    }
    // One who is not the first has no say, until it is.
    let (mut second, small) = (self::client(&rig), terminal(20, 10));
    second.send_with_fd(&b"x"[..], small.slave.as_raw_fd()).unwrap();
    thread::sleep(MOMENT);
    assert_eq!(rig.guest.size(), (136, 47));
    drop(client);
    second.write_all(b"mine").unwrap();
    assert_eq!(rig.guest.read(4), b"mine");
    assert_eq!(rig.guest.size(), (20, 10));
}

#[test]
fn descriptors_of_any_kind_and_number_leave_nothing_behind() {
    let mut rig = start();
    drop(attached(&mut rig));
    thread::sleep(MOMENT);
    let files = rig.process.open_files().unwrap();
    let (null, pipe) = (File::open("/dev/null").unwrap(), std::io::pipe().unwrap());
    let folder = File::open(rig.dir.path()).unwrap();
    let kinds = [null.as_raw_fd(), pipe.0.as_raw_fd(), folder.as_raw_fd()];
    for _ in 0..50 {
        let mut client = client(&rig);
        for fd in kinds {
            client.send_with_fd(&b"x"[..], fd).unwrap();
        }
        client.write_all(b"key").unwrap();
        assert_eq!(rig.guest.read(3), b"key");
        // It has said all with this, and reads on.
        client.send_with_fds(&[&b"x"[..]], &kinds).unwrap();
        rig.guest.print(b"!");
        client.read_exact(&mut [0]).unwrap();
    }
    eventually("all descriptors closed", || {
        (rig.process.open_files().unwrap() == files).then_some(())
    });
    assert_eq!(rig.guest.size(), (0, 0));
}
