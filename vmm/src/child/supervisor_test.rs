//! A backend that dies, hangs, or can't be started.

use std::fs;
use std::io::Read;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::test_doubles::shell;
use super::*;
use crate::control_line::Settings;

/// A supervisor of such a backend.
fn supervisor(script: &str) -> (Supervisor, tempfile::TempDir) {
    let (program, directory) = shell(script);
    let line = Arc::new(ControlLine::to_child("backend", Settings::default()));
    (Supervisor::start(program, Starter::new().unwrap(), "disk0", line).unwrap(), directory)
}

/// Asks until there is a connection or none will be.
fn connected(supervisor: &mut Supervisor) -> Result<UnixStream, String> {
    loop {
        match supervisor.connect("disk0").unwrap() {
            Attempt::Connected(stream) => return Ok(stream),
            Attempt::NotYet { retry, .. } => thread::sleep(retry),
            Attempt::GivenUp { why } => return Err(why),
        }
    }
}

fn send(signal: Signal, supervisor: &Supervisor) {
    let pid = i32::try_from(supervisor.pid().unwrap()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

#[test]
fn a_backend_that_was_killed_is_started_again_and_its_end_is_told() {
    let (mut supervisor, _directory) = supervisor("exec sleep 1000");
    let mut first = connected(&mut supervisor).unwrap();
    let pid = supervisor.pid();
    send(Signal::SIGKILL, &supervisor);
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
    assert_eq!(supervisor.autopsy().as_deref(), Some("killed by SIGKILL"));
    let _second = connected(&mut supervisor).unwrap();
    assert_ne!(supervisor.pid(), pid);
}

#[test]
fn a_backend_that_hangs_without_its_connection_is_killed_before_another_is_started() {
    let (mut supervisor, _directory) = supervisor("exec sleep 1000");
    let first = connected(&mut supervisor).unwrap();
    send(Signal::SIGSTOP, &supervisor);
    drop(first);
    match supervisor.connect("disk0").unwrap() {
        Attempt::NotYet { why, .. } => assert!(why.contains("has not ended yet"), "{why}"),
        other => panic!("{other:?} while the last still runs"),
    }
    let _second = connected(&mut supervisor).unwrap();
    assert_eq!(supervisor.cause.as_deref(), Some("killed by SIGKILL"));
}

#[test]
fn a_backend_whose_program_is_gone_for_a_while_is_started_when_it_is_back() {
    let (mut supervisor, directory) = supervisor("exec sleep 1000");
    let _first = connected(&mut supervisor).unwrap();
    let (there, away) = (directory.path().join("backend"), directory.path().join("away"));
    fs::rename(&there, &away).unwrap();
    send(Signal::SIGKILL, &supervisor);
    loop {
        match supervisor.connect("disk0").unwrap() {
            Attempt::NotYet { why, .. } if why.contains("No such file") => break,
            Attempt::NotYet { retry, .. } => thread::sleep(retry),
            other => panic!("{other:?} without a program"),
        }
    }
    fs::rename(&away, &there).unwrap();
    let _second = connected(&mut supervisor).unwrap();
}

#[test]
fn a_backend_that_cannot_be_started_at_all_is_an_error() {
    let (program, directory) = shell("");
    drop(directory);
    let line = Arc::new(ControlLine::to_child("backend", Settings::default()));
    let error = Supervisor::start(program, Starter::new().unwrap(), "disk0", line).unwrap_err();
    assert!(error.to_string().contains("can't start"), "{error}");
}

#[test]
fn a_backend_that_is_dropped_ends() {
    let (mut supervisor, _directory) = supervisor("exec sleep 1000");
    let mut socket = connected(&mut supervisor).unwrap();
    let seat = supervisor.seat();
    drop(supervisor);
    assert_eq!(socket.read(&mut [0]).unwrap(), 0);
    seat.clear();
    assert!(seat.lock().child.is_none());
}

#[test]
fn how_a_backend_ended_can_be_asked_of_its_seat() {
    let (mut supervisor, _directory) = supervisor("exit 3");
    let _socket = connected(&mut supervisor).unwrap();
    let seat = supervisor.seat();
    let (program, status) = seat.ended(Duration::from_secs(10)).unwrap();
    assert_eq!((program, status.code()), ("backend", Some(3)));
    // Whoever is last to see it off leaves word.
    drop(supervisor);
    seat.clear();
    assert_eq!(seat.ended(Duration::ZERO).unwrap().1.code(), Some(3));
}

#[test]
fn a_backend_that_is_started_again_has_the_limits_that_were_set_last() {
    let (program, directory) = shell("echo \"$@\" >> \"$0.arguments\"; exec sleep 1000");
    let line = Arc::new(ControlLine::to_child("backend", Settings::new([("bps", 7)].into())));
    let starter = Starter::new().unwrap();
    let mut supervisor = Supervisor::start(program, starter, "disk0", line.clone()).unwrap();
    let arguments = || {
        let said = fs::read_to_string(directory.path().join("backend.arguments"));
        said.unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let wait_for = |starts| {
        while arguments().len() < starts {
            thread::sleep(LOOK);
        }
    };
    wait_for(1);
    let _first = connected(&mut supervisor).unwrap();
    assert!(arguments()[0].contains("--control-fd=") && arguments()[0].ends_with(" --limit-bps=7"));
    // As if the process had agreed.
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    line.connect(ours).unwrap();
    use std::io::Write as _;
    theirs.write_all(&atoll_http::json(atoll_http::Status::Ok, &Vec::<u8>::new(), false)).unwrap();
    let _parsed = line.limit(&[("bps", 0), ("iops", 9)].into());
    send(Signal::SIGKILL, &supervisor);
    let _second = connected(&mut supervisor).unwrap();
    wait_for(2);
    assert!(arguments()[1].ends_with(" --limit-iops=9"), "{:?}", arguments());
}
