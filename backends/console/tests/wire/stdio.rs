//! `--stdio`: a terminal of the test's own, and pipes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use atoll_driver::{FrontEnd, Memory, Process, TIMEOUT, pass_fd};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};

use crate::rig::{F_SIZE, Guest, Rig, command, eventually, pattern, reader};

nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, Winsize);

const fn window(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A terminal with a person in front of it.
struct Terminal {
    person: File,
    program: OwnedFd,
}

impl Terminal {
    fn new() -> Self {
        let OpenptyResult { master, slave } = openpty(Some(&window(100, 40)), None).unwrap();
        Self { person: master.into(), program: slave }
    }

    /// Lets a command run in it, as a shell would.
    fn put_behind(&self, command: &mut Command) {
        let handle = || Stdio::from(self.program.try_clone().unwrap());
        command.stdin(handle()).stdout(handle());
        let make_it_ours = || {
            nix::unistd::setsid()?;
            // SAFETY: a system call with numbers.
            match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec it makes two system calls.
        unsafe { command.pre_exec(make_it_ours) };
    }

    fn settings(&self) -> Termios {
        tcgetattr(self.program.as_fd()).unwrap()
    }

    fn is_raw(&self) -> bool {
        let cooked = LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG;
        !self.settings().local_flags.intersects(cooked)
    }
}

fn start(terminal: &Terminal) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), ["--stdio"]);
    terminal.put_behind(&mut command);
    Rig::run(dir, &mut command)
}

#[test]
fn the_terminal_is_raw_while_it_runs_and_as_before_when_it_ends() {
    let terminal = Terminal::new();
    let before = terminal.settings();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut rig = start(&terminal);
        eventually("raw mode", || terminal.is_raw().then_some(()));
        rig.process.signal(signal).unwrap();
        let (status, stderr) = rig.process.wait().unwrap();
        assert!(status.success(), "{signal}: {status}: {stderr}");
        assert_eq!(terminal.settings(), before, "after {signal}");
    }
}

#[test]
fn the_terminal_is_as_before_when_it_is_told_to_end_at_once() {
    let terminal = Terminal::new();
    let before = terminal.settings();
    let mut rig = start(&terminal);
    eventually("raw mode", || terminal.is_raw().then_some(()));
    // Nobody reads what is printed last, so it does not end at the first signal.
    rig.guest.print(&pattern(100 << 10));
    rig.process.signal(Signal::SIGTERM).unwrap();
    std::thread::sleep(crate::rig::MOMENT);
    rig.process.signal(Signal::SIGTERM).unwrap();
    rig.process.wait().unwrap();
    assert_eq!(terminal.settings(), before);
}

#[test]
fn the_terminal_is_as_before_when_the_front_end_leaves() {
    let terminal = Terminal::new();
    let before = terminal.settings();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll-console"));
    command.args(["--stdio", "--fd=3"]);
    terminal.put_behind(&mut command);
    pass_fd(&mut command, &theirs, 3).unwrap();
    let mut process = Process::run(&mut command).unwrap();
    drop((theirs, command));
    let device = FrontEnd::over(ours, Memory::new(1 << 20).unwrap()).unwrap();
    let guest = Guest::negotiate(device, F_SIZE);
    eventually("raw mode", || terminal.is_raw().then_some(()));
    guest.device.disconnect();
    let (status, stderr) = process.wait().unwrap();
    assert!(status.success(), "{status}: {stderr}");
    assert_eq!(terminal.settings(), before);
}

#[test]
fn keys_and_output_pass_unchanged() {
    let terminal = Terminal::new();
    let mut rig = start(&terminal);
    eventually("raw mode", || terminal.is_raw().then_some(()));
    let mut person = terminal.person.try_clone().unwrap();
    // Control-C, Control-D, Control-Z, Control-S and Enter are the guest's.
    let keys = b"ls\r\x03\x04\x1a\x13\x11";
    person.write_all(keys).unwrap();
    assert_eq!(rig.guest.read(keys.len()), keys);
    let out = pattern(100 << 10);
    let reading = reader(person, out.len());
    rig.guest.print(&out);
    assert!(reading.join().unwrap() == out, "the output differs");
}

#[test]
fn the_guest_is_told_of_the_windows_size_and_of_each_change() {
    let terminal = Terminal::new();
    let mut rig = start(&terminal);
    assert_eq!(rig.guest.device.features() & F_SIZE, F_SIZE);
    // Once when the rings start: Linux looks at the size when it is told of a change.
    rig.guest.device.wait_config_change(TIMEOUT).unwrap();
    assert_eq!(rig.guest.size(), (100, 40));
    for round in 1..=20 {
        let size = window(100 + round, 40 + round);
        // SAFETY: the kernel reads a `winsize`.
        unsafe { set_window_size(terminal.person.as_raw_fd(), &raw const size) }.unwrap();
        rig.guest.device.wait_config_change(TIMEOUT).unwrap();
        assert_eq!(rig.guest.size(), (100 + round, 40 + round));
    }
}

#[test]
fn pipes_do_as_well_and_the_end_of_input_is_not_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), ["--stdio"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut rig = Rig::run(dir, &mut command);
    assert_eq!(rig.guest.device.features() & F_SIZE, 0, "a pipe has no size");
    let mut stdin = rig.process.child().stdin.take().unwrap();
    stdin.write_all(b"typed by a script").unwrap();
    drop(stdin);
    assert_eq!(rig.guest.read(17), b"typed by a script");
    let out = pattern(1 << 20);
    let mut stdout = rig.process.child().stdout.take().unwrap();
    let expected = out.clone();
    let reading = std::thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        stdout.read_exact(&mut got).unwrap();
        assert!(got == expected, "the output differs");
    });
    rig.guest.print(&out);
    reading.join().unwrap();
    let before = rig.process.cpu_nanoseconds().unwrap();
    std::thread::sleep(crate::rig::MOMENT);
    let spent = rig.process.cpu_nanoseconds().unwrap() - before;
    assert!(spent < 5_000_000, "{spent} ns of work though there is nothing to do");
    rig.terminate();
}

#[test]
fn the_escape_ends_it_with_a_code_of_its_own() {
    let terminal = Terminal::new();
    let before = terminal.settings();
    let mut rig = start(&terminal);
    eventually("raw mode", || terminal.is_raw().then_some(()));
    let mut person = terminal.person.try_clone().unwrap();
    person.write_all(b"key\x1d\x1d\x1dbq").unwrap();
    assert_eq!(rig.guest.read(6), b"key\x1d\x0fq", "all but the escape is the guest's");
    person.write_all(b"\x1dq").unwrap();
    let (status, stderr) = rig.process.wait().unwrap();
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("Ctrl-] q leaves"), "{stderr}");
    assert_eq!(terminal.settings(), before);
}

#[test]
fn keys_wait_in_order_for_a_guest_that_takes_none_yet() {
    let terminal = Terminal::new();
    let mut rig = start(&terminal);
    eventually("raw mode", || terminal.is_raw().then_some(()));
    // Far more than the guest has buffers for. None of them begins the escape.
    let typed: Vec<_> = pattern(100 << 10).into_iter().map(|key| key | 0x80).collect();
    let (mut person, keys) = (terminal.person.try_clone().unwrap(), typed.clone());
    let typing = std::thread::spawn(move || person.write_all(&keys).unwrap());
    eventually("keys to fill all that waits", || {
        let before = rig.process.cpu_nanoseconds().unwrap();
        std::thread::sleep(crate::rig::MOMENT);
        (rig.process.cpu_nanoseconds().unwrap() == before).then_some(())
    });
    assert!(rig.guest.read(typed.len()) == typed, "the input differs");
    typing.join().unwrap();
    rig.terminate();
}

#[test]
fn files_do_as_well_though_nothing_can_be_waited_for_at_them() {
    let dir = tempfile::tempdir().unwrap();
    let [script, log] = ["script", "log"].map(|name| dir.path().join(name));
    let typed = pattern(200 << 10);
    std::fs::write(&script, &typed).unwrap();
    let mut command = command(dir.path(), ["--stdio"]);
    command.stdin(File::open(&script).unwrap()).stdout(File::create(&log).unwrap());
    let mut rig = Rig::run(dir, &mut command);
    assert!(rig.guest.read(typed.len()) == typed, "the input differs");
    let printed = pattern(300 << 10);
    rig.guest.print(&printed);
    rig.terminate();
    assert!(std::fs::read(log).unwrap() == printed, "the output differs");
}

#[test]
fn what_is_no_terminal_has_no_escape() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), ["--stdio"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut rig = Rig::run(dir, &mut command);
    rig.process.child().stdin.as_mut().unwrap().write_all(b"\x1dq\x1d\x1d").unwrap();
    assert_eq!(rig.guest.read(4), b"\x1dq\x1d\x1d");
    rig.terminate();
}
