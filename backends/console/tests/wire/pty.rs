//! `--pty`: a pseudo-terminal that a person opens and closes.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::thread;

use nix::sys::termios::{LocalFlags, OutputFlags, tcgetattr};

use crate::rig::{MOMENT, Rig, connect, eventually, pattern, reader};

fn start() -> Rig {
    Rig::start(|dir| vec![format!("--pty={}", dir.join("console").display())])
}

fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NOCTTY);
    eventually("a pseudo-terminal", || options.open(path).ok())
}

#[test]
fn the_link_leads_to_a_raw_terminal_and_is_removed_at_the_end() {
    let mut rig = start();
    let link = rig.path("console");
    assert!(fs::read_link(&link).unwrap().starts_with("/dev/pts"));
    let terminal = open(&link);
    let settings = tcgetattr(terminal.as_fd()).unwrap();
    let cooked = LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG;
    assert!(!settings.local_flags.intersects(cooked), "the guest echoes and edits");
    assert!(!settings.output_flags.contains(OutputFlags::OPOST), "the guest ends its lines");
    rig.terminate();
    assert!(fs::symlink_metadata(&link).is_err(), "the link is removed");
}

#[test]
fn bytes_pass_both_ways_unchanged() {
    let mut rig = start();
    let mut terminal = open(&rig.path("console"));
    let out = pattern(300 << 10);
    let reading = reader(terminal.try_clone().unwrap(), out.len());
    rig.guest.print(&out);
    assert!(reading.join().unwrap() == out, "the output differs");
    // A line's worth at a time, as the kernel's line buffers are short.
    for piece in pattern(32 << 10).chunks(1000) {
        terminal.write_all(piece).unwrap();
        assert_eq!(rig.guest.read(piece.len()), piece);
    }
}

#[test]
fn what_is_typed_before_it_is_closed_arrives() {
    let mut rig = start();
    for _ in 0..50 {
        open(&rig.path("console")).write_all(b"last words").unwrap();
        assert_eq!(rig.guest.read(10), b"last words");
    }
}

#[test]
fn output_is_kept_while_it_is_closed_and_shown_when_it_opens() {
    let mut rig = start();
    for round in 0..3_u8 {
        let line = format!("round {round}: nobody has it open\r\n");
        rig.guest.print(line.as_bytes());
        let mut terminal = open(&rig.path("console"));
        let mut got = vec![0; line.len()];
        terminal.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), line);
        drop(terminal);
        thread::sleep(MOMENT);
    }
}

#[test]
fn a_closed_terminal_costs_no_processor_time() {
    let rig = start();
    drop(open(&rig.path("console")));
    thread::sleep(2 * MOMENT);
    let before = rig.process.cpu_nanoseconds().unwrap();
    thread::sleep(3 * MOMENT);
    assert_eq!(rig.process.cpu_nanoseconds().unwrap(), before, "it slept all the time");
}

#[test]
fn without_a_link_its_path_is_printed() {
    let mut rig = Rig::start(|_| vec!["--pty".into()]);
    rig.guest.print(b"for nobody");
    let (status, stderr) = rig.process.terminate().unwrap();
    assert!(status.success(), "{status}");
    assert!(stderr.contains("/dev/pts/"), "{stderr}");
}

#[test]
fn a_link_left_behind_is_replaced() {
    let mut rig = Rig::start(|dir| {
        let link = dir.join("console");
        symlink("/dev/pts/424242", &link).unwrap();
        vec![format!("--pty={}", link.display())]
    });
    let mut terminal = open(&rig.path("console"));
    terminal.write_all(b"new").unwrap();
    assert_eq!(rig.guest.read(3), b"new");
}

#[test]
fn the_control_socket_says_where_its_pseudo_terminals_are() {
    let rig = Rig::start(|dir| {
        let control = dir.join("control").display().to_string();
        vec!["--pty".into(), "--port=agent:pty".into(), format!("--control-socket={control}")]
    });
    let mut client = connect(&rig.path("control"));
    client.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let state: serde_json::Value = serde_json::from_str(body).unwrap();
    let terminals = state["terminals"].as_array().unwrap();
    let paths = Vec::from_iter(terminals.iter().map(|one| one["path"].as_str().unwrap()));
    for (what, path) in ["the console", "port agent"].iter().zip(&paths) {
        rig.process.wait_for_log(&format!("{what} is at {path}")).unwrap();
    }
    assert_eq!((&terminals[0]["port"], &terminals[1]["port"]), (&().into(), &"agent".into()));
}
