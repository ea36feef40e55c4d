//! What a network card's process can't do any more once it serves.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use atoll_driver::{Process, Refusal, without};
use tempfile::TempDir;

use crate::network;
use crate::rig::{Rig, USUAL};

/// A card to be, in a network that was entered, and where its socket is.
fn card() -> (Command, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("--socket-path={}", dir.path().join("net.sock").display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll-net"));
    command.args([&socket, "--tap=tap0"]);
    (command, dir)
}

#[test]
fn every_thread_in_service_is_confined_and_has_no_say_in_the_network() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    rig.post(8, 1536);
    rig.check_alive();
    let threads = rig.process.confinement().unwrap();
    assert!(threads.len() >= 3, "{threads:?}");
    for thread in threads {
        assert_eq!((thread.seccomp, thread.no_new_privileges, thread.capabilities), (2, true, 0));
    }
}

#[test]
#[cfg(debug_assertions)]
fn a_thread_that_lets_others_go_first_can_not_have_them_wait() {
    if network::enter().is_none() {
        return;
    }
    let (mut command, _dir) = card();
    command.env("ATOLL_TRESPASS", "scheduler");
    let (status, stderr) = Process::run(&mut command).unwrap().wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGSYS), "{stderr}");
    assert!(stderr.contains("the system call sched_setscheduler"), "{stderr}");
}

#[test]
fn who_would_be_killed_for_letting_others_go_first_is_so_at_its_start() {
    if network::enter().is_none() {
        return;
    }
    let (mut command, _dir) = card();
    let start = || Process::run(&mut command).unwrap();
    let started = without(&[libc::SYS_sched_setscheduler], Refusal::Kill, start);
    assert_eq!(started.unwrap().wait().unwrap().0.signal(), Some(libc::SIGSYS));
}
