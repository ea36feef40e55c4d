//! Front-ends in great number, polite and not, and one that is a service manager's: the process
//! serves each of them, and keeps nothing of any.

use std::os::unix::net::UnixListener;

use atoll_driver::{Abuse, FrontEnd, Memory, ServiceManager, VERSION_1, assert_steady};

use crate::network;
use crate::rig::{Rig, USUAL};

#[test]
fn hostile_front_ends_cost_a_sentence_at_most() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    let mut abuses = 0;
    assert_steady(2, || {
        rig.device.disconnect();
        abuses += Abuse::commit_all(&rig.socket).unwrap();
        rig.reattach(USUAL);
        rig.check_alive();
        rig.process.footprint().unwrap()
    });
    let (status, stderr) = rig.process.terminate().unwrap();
    assert!(status.success(), "{status}: {stderr}");
    assert!(stderr.lines().count() <= abuses, "{stderr}");
}

#[test]
fn a_thousand_front_ends_leave_nothing_behind() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    assert_steady(10, || {
        (0..100).for_each(|_| rig.reattach(USUAL));
        rig.check_alive();
        rig.process.footprint().unwrap()
    });
    let (status, stderr) = rig.process.terminate().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_service_manager_hands_over_the_socket_and_hears_of_start_and_end() {
    if network::enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("net.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let program = env!("CARGO_BIN_EXE_atoll-net");
    let (manager, mut process) =
        ServiceManager::start(dir.path(), &[&listener], program, ["--tap=tap0"]).unwrap();
    assert_eq!(manager.notified().unwrap(), "READY=1");
    let mut device = FrontEnd::connect(&socket, Memory::new(1 << 20).unwrap()).unwrap();
    device.negotiate(VERSION_1).unwrap();
    let (status, stderr) = process.terminate().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert_eq!(manager.notified().unwrap(), "STOPPING=1");
    assert!(socket.exists(), "who made the socket removes it");
}
