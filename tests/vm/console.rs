//! Consoles: what is typed is read, what is written is seen.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use atoll_tests::console::Console;
use atoll_tests::guest::Guest;
use atoll_tests::requirement::Requirement::StockKvm;
use atoll_tests::scratch::Scratch;
use atoll_tests::terminal::Terminal;
use atoll_tests::{PATIENCE, load, program, require, wait_for};

#[test]
fn a_console_carries_text_both_ways_and_survives_its_driver() {
    require!(StockKvm);
    let scratch = Scratch::new();
    let socket = scratch.join("hvc1");
    let mut guest = Guest::builder().console(&format!("socket={}", socket.display())).boot();
    let mut console = wait_for("the second console", || Console::connect(&socket));
    let backends = guest.backends();

    for round in 0..2 {
        guest.check("stty -F /dev/hvc1 raw -echo");

        // Typed here, read there, and more than one buffer's worth of it.
        let typed: String = (0..2000).map(|line| format!("line {line}\n")).collect();
        guest.check(&format!("head -c {} < /dev/hvc1 > /tmp/typed & sleep 1", typed.len()));
        console.type_text(&typed);
        guest.check("wait");
        assert_eq!(guest.check("cat /tmp/typed"), typed.trim(), "round {round}");

        // Written there, seen here.
        let from = console.position();
        guest.check("cat /tmp/typed > /dev/hvc1");
        console
            .wait_for(from, PATIENCE, |heard| heard.contains(&typed).then_some(()))
            .expect("the guest's text on the console");

        guest.rebind("$(ls -d /sys/class/virtio-ports/* | tail -n 1)/device");
    }
    assert_eq!(guest.backends(), backends, "a backend lives on through a reset");
    guest.power_off();
}

#[test]
fn a_named_port_answers_beside_its_console() {
    require!(StockKvm);
    let scratch = Scratch::new();
    let (socket, agent) = (scratch.join("hvc1"), scratch.join("agent"));
    let to = format!("socket={},port=org.atoll.echo:socket={}", socket.display(), agent.display());
    let mut guest = Guest::builder().console(&to).boot();
    let console = wait_for("the second console", || Console::connect(&socket));
    guest.check("echo beside > /dev/hvc1");
    let beside = |heard: &str| heard.contains("beside").then_some(());
    console.wait_for(0, PATIENCE, beside).expect("text on the console");

    // Without udev a port has its number only; the name is what the device told.
    guest.check(
        "port=/dev/$(basename $(dirname $(grep -l org.atoll.echo /sys/class/virtio-ports/*/name)))",
    );
    bulk_through_a_port(&mut guest, &agent);
    // Where nobody is at the other end, what is read is an end.
    guest.check(
        "(while :; do if read line; then echo \"heard $line\" >&3; else sleep 1; fi; done <&3) &",
    );
    let mut outside = Console::connect(&agent).expect("the port's socket");
    for round in 0..3 {
        outside.type_text(&format!("round {round}\n"));
        let answer = format!("heard round {round}\n");
        outside
            .wait_for(0, PATIENCE, |heard| heard.contains(&answer).then_some(()))
            .expect("an answer from the port");
    }
    guest.power_off();
}

/// Both ways at the same time: what the guest sends comes back to it. It keeps `$port` open as 3.
#[track_caller]
fn bulk_through_a_port(guest: &mut Guest, socket: &Path) {
    let mut from = UnixStream::connect(socket).expect("the port's socket");
    let mut to = from.try_clone().expect("clone a socket");
    let len = load::transfer();
    let echo = std::thread::spawn(move || {
        let (mut piece, mut left) = (vec![0; 64 << 10], len);
        while left > 0 {
            let count = from.read(&mut piece).expect("read from the guest");
            assert!(count > 0, "the port was closed with {left} bytes to come");
            to.write_all(&piece[..count]).expect("write to the guest");
            left -= count;
        }
    });
    // No two MiB are equal, so that bytes in a wrong place show.
    guest.check(&format!(
        "head -c 1048572 /dev/urandom > /tmp/a && for i in $(seq 100 {}); do echo $i; cat /tmp/a; \
         done > /tmp/sent && exec 3<> $port && (cat /tmp/sent >&3 &) && \
         head -c {len} <&3 | cmp - /tmp/sent",
        99 + (len >> 20)
    ));
    echo.join().expect("the echo");
}

#[test]
fn a_guests_terminal_is_as_large_as_the_one_that_is_attached() {
    require!(StockKvm);
    let scratch = Scratch::new();
    let socket = scratch.join("hvc1");
    let mut guest = Guest::builder().console(&format!("socket={}", socket.display())).boot();
    // Open, so that it is the same terminal all the time.
    guest.check("exec 4<> /dev/hvc1");
    let size = |guest: &mut Guest| guest.check("stty size <&4");
    let terminal = Terminal::new(101, 31);
    let mut command = Command::new(program::ours("atoll"));
    let mut seated = terminal.run(command.arg("console").arg("--attach").arg(&socket));
    for (columns, rows) in [(101, 31), (132, 43)] {
        terminal.resize(columns, rows);
        let expected = format!("{rows} {columns}");
        wait_for("the new size", || (size(&mut guest) == expected).then_some(()));
    }
    guest.check("echo seen > /dev/hvc1");
    terminal.wait_shows("seen");
    terminal.press(b"\x1dq");
    assert!(seated.wait().success());
    guest.power_off();
}

#[test]
fn a_hundred_clients_during_a_guests_output_lose_and_double_nothing() {
    require!(StockKvm);
    // All lines are of one length.
    let (clients, lines, first) = (100, 500, 100_000);
    let scratch = Scratch::new();
    let socket = scratch.join("hvc1");
    let mut guest = Guest::builder().console(&format!("socket={}", socket.display())).boot();
    // It prints so many lines for each that is typed: more than one client takes, less than is kept
    // while nobody is attached.
    guest.check(&format!(
        "exec 5<> /dev/hvc1; stty raw -echo <&5; (from={first}; while read line; do \
         seq $from $((from + {lines} - 1)) | cat; from=$((from + {lines})); done <&5 >&5) &"
    ));
    let expected: String =
        (first..first + clients * lines).map(|line| format!("{line}\n")).collect();
    let (mut got, mut piece) = (Vec::new(), vec![0; 4096]);
    for client in 0..clients {
        let mut stream = wait_for("the socket", || UnixStream::connect(&socket).ok());
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        stream.write_all(b"\n").expect("type a line");
        // It leaves in the midst of what it has asked for.
        let block = expected.len() / clients;
        while got.len() < client * block + block / 2 {
            let count = stream.read(&mut piece).expect("output");
            assert!(count > 0, "the console was closed");
            got.extend_from_slice(&piece[..count]);
        }
        stream.shutdown(Shutdown::Read).expect("want no more");
        stream.read_to_end(&mut got).expect("what was on its way");
    }
    let mut last = wait_for("the socket", || UnixStream::connect(&socket).ok());
    last.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let mut rest = vec![0; expected.len().saturating_sub(got.len())];
    last.read_exact(&mut rest).expect("the rest");
    got.extend(rest);
    let same = got.iter().zip(expected.as_bytes()).take_while(|(a, b)| a == b).count();
    assert_eq!((same, got.len()), (expected.len(), expected.len()), "what is the same, what came");
    guest.power_off();
}
