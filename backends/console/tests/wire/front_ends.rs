//! Front-ends in great number, polite and not, and one that is a service manager's: the process
//! serves each of them, and keeps nothing of any.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use atoll_driver::{Abuse, ServiceManager, assert_steady};

use crate::rig::{Guest, Rig, eventually};

fn file_of(dir: &Path) -> String {
    format!("--file={}", dir.join("log").display())
}

/// What the guest prints gets out.
fn assert_serves(rig: &mut Rig) {
    let before = fs::read(rig.path("log")).unwrap_or_default().len();
    rig.guest.print(b"alive");
    let path = rig.path("log");
    eventually("output", || {
        let log = fs::read(&path).ok()?;
        (log.get(before..) == Some(b"alive")).then_some(())
    });
}

#[test]
fn hostile_front_ends_cost_a_sentence_at_most() {
    let mut rig = Rig::start(|dir| vec![file_of(dir)]);
    let socket = rig.path("front-end.sock");
    let mut abuses = 0;
    assert_steady(2, || {
        rig.guest.device.disconnect();
        abuses += Abuse::commit_all(&socket).unwrap();
        rig.reattach();
        assert_serves(&mut rig);
        rig.process.footprint().unwrap()
    });
    let (status, stderr) = rig.process.terminate().unwrap();
    assert!(status.success(), "{status}: {stderr}");
    assert!(stderr.lines().count() <= abuses, "{stderr}");
}

#[test]
fn a_thousand_front_ends_leave_nothing_behind() {
    let mut rig = Rig::start(|dir| vec![file_of(dir)]);
    assert_steady(10, || {
        (0..100).for_each(|_| rig.reattach());
        assert_serves(&mut rig);
        rig.process.footprint().unwrap()
    });
    let (status, stderr) = rig.process.terminate().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_service_manager_hands_over_the_socket_and_hears_of_start_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("front-end.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let program = env!("CARGO_BIN_EXE_atoll-console");
    let (manager, mut process) =
        ServiceManager::start(dir.path(), &[&listener], program, [file_of(dir.path())]).unwrap();
    assert_eq!(manager.notified().unwrap(), "READY=1");
    Guest::attach(&socket, 0).print(b"hello");
    let (status, stderr) = process.terminate().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert_eq!(manager.notified().unwrap(), "STOPPING=1");
    assert_eq!(fs::read(dir.path().join("log")).unwrap(), b"hello");
    assert!(socket.exists(), "who made the socket removes it");
}
