//! Moving a device to another back-end under a running guest.

use std::time::Instant;

use super::super::REPLY_DEADLINE;
use super::super::SocketPeer;
use super::super::test_doubles::Obedient;
use super::super::test_rig::{Rig, Said, Server, activation, bind, rig, wait_until};
use super::*;
use crate::virtio::VirtioDevice;

/// A device at work on `server`.
fn working(server: &Server) -> Rig {
    let rig = rig(server.peer());
    rig.device.start(activation());
    server.runs(1);
    wait_until("it is noted", || rig.machine.saw(EventKind::Active));
    rig
}

fn sentence(outcome: Outcome) -> String {
    outcome.unwrap_err().sentence()
}

#[test]
fn a_device_moves_with_its_record_and_goes_on_where_it_was() {
    let (old, new) = (Server::new(Obedient::new(2)), Server::new(Obedient::new(2)));
    let rig = working(&old);
    rig.requests(3, 3);
    rig.device.swap(new.path()).unwrap();
    assert_eq!((old.told("stop 0"), old.told("stop 1")), (1, 1));
    assert_eq!((new.told("base 0 3"), new.told("base 1 0")), (1, 1));
    assert_eq!(new.told("enable 1 true"), 1);
    let inflight = |server: &Server| server.backend.lock().unwrap().inflight;
    assert_eq!(inflight(&old), inflight(&new));
    rig.hears_nothing();
    assert!(rig.machine.saw(EventKind::Swapped));
    assert!(!rig.machine.saw(EventKind::Lost));
    assert_eq!(rig.device.status().peer.socket, Some(new.path()));
    // From now on it is the new one's turn to be looked for.
    new.die();
    new.live();
    new.runs(2);
}

#[test]
fn a_back_end_that_does_not_fit_leaves_the_device_where_it_is() {
    let (old, mut other) = (Server::new(Obedient::new(2)), Obedient::new(2));
    other.features &= !(1 << 9);
    let other = Server::new(other);
    let rig = working(&old);
    let sentence = sentence(rig.device.swap(other.path()));
    assert!(sentence.ends_with("it lacks VIRTIO_BLK_F_FLUSH"), "{sentence}");
    assert_eq!(old.told("stop 0"), 0, "the guest did not even notice");
    assert!(rig.machine.saw(EventKind::SwapFailed));
    assert_eq!(rig.device.status().state, DeviceState::Active);
}

#[test]
fn nobody_at_the_other_socket_is_said_at_once() {
    let old = Server::new(Obedient::new(2));
    let rig = working(&old);
    let sentence = sentence(rig.device.swap("/nonexistent/blk.sock".into()));
    assert!(sentence.contains("nobody is there: "), "{sentence}");
    assert_eq!(old.told("stop 0"), 0);
}

#[test]
fn a_back_end_that_fails_when_it_gets_the_rings_gives_them_back_to_the_old_one() {
    let (old, mut other) = (Server::new(Obedient::new(2)), Obedient::new(2));
    other.refuses_ring = Some(1);
    let other = Server::new(other);
    let rig = working(&old);
    rig.requests(4, 4);
    let sentence = sentence(rig.device.swap(other.path()));
    assert!(sentence.contains("SET_VRING_NUM"), "{sentence}");
    old.runs(2);
    assert_eq!(old.told("base 0 4"), 1, "where it left off");
    assert_eq!(rig.device.status().state, DeviceState::Active);
    assert_eq!(rig.device.status().peer.socket, Some(old.path()));
    assert!(!rig.machine.saw(EventKind::Lost));
    rig.hears_nothing();
}

#[test]
fn a_back_end_that_hangs_costs_its_deadline_and_nothing_else() {
    let old = Server::new(Obedient::new(2));
    let rig = working(&old);
    let dir = tempfile::tempdir().unwrap();
    let _hung = bind(&dir.path().join("hung.sock"));
    let begun = Instant::now();
    let sentence = sentence(rig.device.swap(dir.path().join("hung.sock")));
    assert!(sentence.contains("did not answer in time"), "{sentence}");
    assert!(begun.elapsed() < REPLY_DEADLINE * 3);
    assert_eq!(old.told("stop 0"), 0);
}

#[test]
fn requests_that_the_old_one_left_undone_without_a_record_are_not_lost() {
    let forgetful = || {
        let mut obedient = Obedient::new(2);
        obedient.protocol.remove(vhost::vhost_user::VhostUserProtocolFeatures::INFLIGHT_SHMFD);
        obedient
    };
    let (old, new) = (Server::new(forgetful()), Server::new(forgetful()));
    let rig = working(&old);
    rig.overtaken();
    old.backend.lock().unwrap().base = 2;
    let sentence = sentence(rig.device.swap(new.path()));
    assert!(sentence.contains("gave queue 0 back unfinished"), "{sentence}");
    old.runs(2);
    assert_eq!(old.told("base 0 2"), 1, "it knows what it has");
    assert_eq!(new.told("enable 1 true"), 0);
}

#[test]
fn an_old_one_that_won_t_let_go_is_lost_and_the_new_one_takes_over() {
    let (old, new) = (Server::new(Obedient::new(2)), Server::new(Obedient::new(2)));
    let rig = working(&old);
    let hung = std::sync::Arc::clone(&old.backend);
    let hung = hung.lock().unwrap();
    rig.device.swap(new.path()).unwrap();
    new.runs(1);
    assert_eq!(rig.device.status().state, DeviceState::Active);
    drop(hung);
}

#[test]
fn a_device_without_a_back_end_moves_to_another() {
    let (old, new) = (Server::new(Obedient::new(2)), Server::new(Obedient::new(2)));
    let rig = working(&old);
    rig.requests(3, 3);
    old.die();
    wait_until("the loss is noticed", || rig.machine.saw(EventKind::Lost));
    rig.device.swap(new.path()).unwrap();
    new.runs(1);
    assert_eq!(new.told("base 0 3"), 1);
    assert_eq!(rig.device.status().recoveries, 1);
}

#[test]
fn an_idle_device_moves_as_well() {
    let (old, new) = (Server::new(Obedient::new(2)), Server::new(Obedient::new(2)));
    new.backend.lock().unwrap().config[0] = 5;
    let rig = rig(old.peer());
    rig.device.swap(new.path()).unwrap();
    match rig.hear() {
        Said::Config(config, true) => assert_eq!(config[0], 5),
        other => panic!("{other:?}"),
    }
    rig.device.start(activation());
    new.runs(1);
    assert_eq!(old.told("enable 1 true"), 0);
}

#[test]
fn attaching_anew_looks_at_once_and_needs_no_policy() {
    let server = Server::new(Obedient::new(2));
    let rig = working(&server);
    let _old_life = std::fs::remove_file(server.path());
    server.live();
    rig.device.reattach().unwrap();
    server.runs(2);
    assert_eq!(server.told("stop 0"), 1, "so that nothing is left undone");
    assert!(!rig.machine.saw(EventKind::Policy));
}

#[test]
fn an_ended_device_says_so() {
    let server = Server::new(Obedient::new(2));
    let rig = working(&server);
    rig.device.shutdown();
    assert!(rig.device.swap(server.path()).is_err());
    assert!(rig.device.reattach().is_err());
}

/// A source that says which process is behind its connection.
struct Known(u32, SocketPeer);

impl PeerSource for Known {
    fn name(&self) -> String {
        self.1.name()
    }
    fn connect(&mut self, id: &str) -> Result<Attempt, VhostUserError> {
        self.1.connect(id)
    }
    fn pid(&self) -> Option<u32> {
        Some(self.0)
    }
}

#[test]
fn nobody_gets_the_rings_while_a_hung_process_may_work_on_them() {
    let (old, new) = (Server::new(Obedient::new(2)), Server::new(Obedient::new(2)));
    let mut process = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let rig = rig(Known(process.id(), old.peer()));
    rig.device.start(activation());
    old.runs(1);
    wait_until("it is noted", || rig.machine.saw(EventKind::Active));
    let hung = std::sync::Arc::clone(&old.backend);
    let hung = hung.lock().unwrap();
    let sentence = sentence(rig.device.swap(new.path()));
    assert!(sentence.contains("hangs with the guest's rings and could still write"), "{sentence}");
    assert_eq!(new.told("enable 1 true"), 0);
    // It ends, and the other one takes over.
    process.kill().unwrap();
    process.wait().unwrap();
    let _old_life = std::fs::remove_file(new.path());
    new.live();
    new.runs(1);
    drop(hung);
}
