//! A back-end that dies, and what becomes of its device.

use std::os::unix::net::UnixListener;
use std::thread;

use super::super::test_doubles::{Obedient, Wrong, misbehave};
use super::super::test_rig::{
    PATIENCE, Rig, Said, Server, activation, bind, rig, rig_of, spec, wait_until,
};
use super::super::{DeviceSpec, PeerSource, StreamPeer};
use super::*;
use crate::virtio::VirtioDevice;

/// One that keeps no record of what it has in flight.
fn forgetful() -> Obedient {
    let mut obedient = Obedient::new(2);
    obedient.protocol.remove(vhost::vhost_user::VhostUserProtocolFeatures::INFLIGHT_SHMFD);
    obedient
}

fn with_policy(policy: &str, peer: impl PeerSource + 'static) -> Rig {
    rig_of(DeviceSpec { policy: policy.parse().unwrap(), ..spec(peer) })
}

/// A device at work on a back-end, which then dies.
fn lost(policy: &str, server: &Server) -> Rig {
    let rig = with_policy(policy, server.peer());
    rig.device.start(activation());
    server.runs(1);
    server.die();
    wait_until("the loss is noticed", || rig.machine.saw(EventKind::Lost));
    rig
}

#[test]
fn a_back_end_killed_at_work_is_resumed_with_its_record_where_the_guest_was() {
    let server = Server::new(Obedient::new(2));
    let rig = rig(server.peer());
    rig.device.start(activation());
    server.runs(1);
    let record = server.backend.lock().unwrap().inflight.take().unwrap();
    // Out of order, which its record knows.
    rig.overtaken();
    for port in rig.device.queues() {
        port.kick.drain();
        port.call.drain();
    }
    server.die();
    wait_until("the loss is noticed", || rig.machine.saw(EventKind::Lost));
    server.live();
    server.runs(2);
    wait_until("it is noted", || rig.machine.saw(EventKind::Recovered));
    assert_eq!(server.backend.lock().unwrap().inflight, Some(record), "the same memory");
    assert_eq!(server.told("make inflight 2 256"), 1);
    assert_eq!(server.told("base 0 0"), 1);
    assert_eq!(server.told("base 0 1"), 1, "where the guest has answers up to");
    for port in rig.device.queues() {
        assert!(port.kick.is_signalled(), "the driver's last kick may be lost");
        assert!(port.call.is_signalled(), "so may the device's last call");
    }
    rig.hears_nothing();
    assert_eq!(rig.device.status().recoveries, 1);
    assert_eq!(rig.device.status().lost_for_ms, None);
}

#[test]
fn a_back_end_may_die_any_number_of_times() {
    let server = Server::new(Obedient::new(2));
    let rig = rig(server.peer());
    rig.device.start(activation());
    for life in 1..=20 {
        server.runs(life);
        wait_until("it is back", || rig.device.status().state == DeviceState::Active);
        server.die();
        server.live();
    }
    server.runs(21);
    rig.hears_nothing();
}

#[test]
fn without_a_record_rings_that_prove_what_is_outstanding_are_resumed() {
    let server = Server::new(forgetful());
    let rig = rig(server.peer());
    rig.device.start(activation());
    server.runs(1);
    rig.requests(5, 2);
    server.die();
    server.live();
    server.runs(2);
    assert_eq!(server.told("base 0 2"), 1);
    rig.hears_nothing();
    assert!(!rig.device.status().inflight);
}

#[test]
fn without_a_record_nothing_is_guessed() {
    let server = Server::new(forgetful());
    let rig = rig(server.peer());
    rig.device.start(activation());
    server.runs(1);
    rig.overtaken();
    server.die();
    server.live();
    assert_eq!(rig.hear(), Said::NeedsReset);
    let text = rig.machine.text(EventKind::NeedsReset);
    wait_until("it is back", || rig.machine.saw(EventKind::Recovered));
    assert_eq!(server.told("enable 1 true"), 1, "the rings are nobody's");
    assert!(text.contains("needs a reset"), "{text}");
    let error = rig.device.status().last_error.unwrap();
    assert!(error.contains("queue 0: 1 requests are outstanding, and 2 may be"), "{error}");
    // A driver that starts afresh has a device again.
    rig.reset();
    assert_eq!(rig.hear(), Said::ResetDone);
    rig.requests(0, 0);
    rig.device.start(activation());
    server.runs(2);
}

#[test]
fn where_nothing_can_be_known_a_policy_of_stop_ends_the_machine() {
    let server = Server::new(forgetful());
    let rig = with_policy("wait:3600:stop", server.peer());
    rig.device.start(activation());
    server.runs(1);
    rig.overtaken();
    server.die();
    server.live();
    wait_until("the machine is stopped", || !rig.machine.told().is_empty());
    let told = rig.machine.told();
    assert!(
        told[0].starts_with("stop: device disk0 (blk) can't go on where its lost back-end was"),
        "{told:?}"
    );
}

#[test]
fn while_it_waits_the_guest_may_boot_and_start_the_device_anew() {
    let server = Server::new(Obedient::new(2));
    let rig = lost("wait", &server);
    assert!(rig.device.status().lost_for_ms.is_some());
    rig.hears_nothing();
    assert_eq!(rig.machine.told(), Vec::<String>::new());
    assert_eq!(rig.device.config().len(), 36, "from the copy");
    for _boot in 0..3 {
        rig.device.quiesce();
        assert_eq!(rig.hear(), Said::ResetDone);
        rig.device.start(activation());
    }
    rig.poke(0x3002, 9);
    server.live();
    server.runs(2);
    assert_eq!(server.told("base 0 0"), 2, "fresh rings begin at the beginning");
    assert_eq!(server.told("make inflight 2 256"), 2);
}

#[test]
fn pausing_stops_the_vcpus_until_a_back_end_is_there() {
    let server = Server::new(Obedient::new(2));
    let rig = lost("pause", &server);
    wait_until("paused", || rig.machine.told() == ["pause"]);
    server.live();
    server.runs(2);
    wait_until("resumed", || rig.machine.told() == ["pause", "resume"]);
}

#[test]
fn resetting_tells_the_guest_and_revives_when_it_starts_the_device_again() {
    let server = Server::new(Obedient::new(2));
    let rig = lost("reset", &server);
    assert_eq!(rig.hear(), Said::NeedsReset);
    server.live();
    wait_until("it is back", || rig.machine.saw(EventKind::Recovered));
    assert_eq!(server.told("enable 1 true"), 1, "stale rings are not handed over");
    rig.reset();
    assert_eq!(rig.hear(), Said::ResetDone);
    rig.device.start(activation());
    server.runs(2);
}

#[test]
fn stopping_ends_the_machine_with_a_sentence() {
    let server = Server::new(Obedient::new(2));
    let rig = lost("stop", &server);
    wait_until("stopped", || !rig.machine.told().is_empty());
    let told = rig.machine.told().remove(0);
    assert!(told.starts_with("stop: device disk0 (blk) lost its back-end at socket /"), "{told}");
    assert!(told.ends_with("the back-end closed the connection (on-disconnect=stop)"), "{told}");
}

#[test]
fn each_policy_gives_way_to_the_next_when_its_time_is_up() {
    let server = Server::new(Obedient::new(2));
    let begun = Instant::now();
    let rig = lost("wait:1:pause:1:reset:1:stop", &server);
    wait_until("paused", || rig.machine.told() == ["pause"]);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(rig.hear(), Said::NeedsReset);
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert_eq!(rig.machine.told(), ["pause", "resume"], "so that the guest can reset the device");
    wait_until("stopped", || rig.machine.told().len() == 3);
    assert!(begun.elapsed() >= Duration::from_secs(3));
}

#[test]
fn a_back_end_that_lacks_what_the_guest_was_told_is_refused_by_name() {
    let server = Server::new(Obedient::new(2));
    let rig = lost("wait", &server);
    server.backend.lock().unwrap().features &= !(1 << 9);
    server.live();
    wait_until("refused", || rig.machine.saw(EventKind::Refused));
    let text = rig.machine.text(EventKind::Refused);
    assert!(text.ends_with("it lacks VIRTIO_BLK_F_FLUSH"), "{text}");
    assert_eq!(rig.device.status().state, DeviceState::Lost);
    let _old_life = std::fs::remove_file(server.path());
    server.backend.lock().unwrap().features |= 1 << 9;
    server.live();
    server.runs(2);
}

#[test]
fn a_superset_goes_on_and_a_change_of_configuration_is_announced() {
    let server = Server::new(Obedient::new(2));
    let rig = lost("wait", &server);
    {
        let mut backend = server.backend.lock().unwrap();
        // VIRTIO_BLK_F_BLK_SIZE, and another capacity.
        backend.features |= 1 << 6;
        backend.config[0] = 8;
    }
    server.live();
    server.runs(2);
    match rig.hear() {
        Said::Config(config, true) => assert_eq!(config[0], 8),
        other => panic!("{other:?}"),
    }
    wait_until("it is told", || rig.machine.saw(EventKind::ConfigChanged));
    assert_eq!(rig.device.features() & 1 << 6, 0, "the guest is not offered more than before");
}

#[test]
fn what_the_driver_wrote_is_written_to_the_next_back_end_as_well() {
    let server = Server::new(Obedient::new(2));
    let rig = rig(server.peer());
    rig.device.start(activation());
    server.runs(1);
    rig.device.write_config(32, &[0]);
    assert!(matches!(rig.hear(), Said::Config(_, false)));
    server.die();
    wait_until("the loss is noticed", || rig.machine.saw(EventKind::Lost));
    rig.device.write_config(33, &[7]);
    server.backend.lock().unwrap().config[32] = 1;
    server.live();
    server.runs(2);
    assert_eq!(server.backend.lock().unwrap().config[32..34], [0, 7]);
    rig.hears_nothing();
}

/// A source that starts back-ends anew, until it can't.
struct Restarting(Vec<Attempt>);

impl PeerSource for Restarting {
    fn name(&self) -> String {
        "its own process".to_owned()
    }
    fn connect(&mut self, _id: &str) -> Result<Attempt, VhostUserError> {
        Ok(self.0.remove(0))
    }
    fn restarts(&self) -> bool {
        true
    }
    fn autopsy(&mut self) -> Option<String> {
        Some("killed by SIGKILL".to_owned())
    }
}

#[test]
fn a_process_of_ours_is_restarted_before_the_policy_applies() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let (again, theirs_again) = std::os::unix::net::UnixStream::pair().unwrap();
    let hang_up = theirs.try_clone().unwrap();
    let hang_up_again = theirs_again.try_clone().unwrap();
    let _first = Obedient::new(2).serve(theirs);
    let _second = Obedient::new(2).serve(theirs_again);
    let soon = || Attempt::NotYet { retry: Duration::from_millis(5), why: "soon".into() };
    let given_up = Attempt::GivenUp { why: "it died too often".into() };
    let attempts =
        vec![Attempt::Connected(ours), soon(), soon(), Attempt::Connected(again), soon(), given_up];
    let rig = with_policy("stop", Restarting(attempts));
    rig.device.start(activation());
    wait_until("it is started", || rig.machine.saw(EventKind::Active));
    hang_up.shutdown(std::net::Shutdown::Both).unwrap();
    wait_until("restarted", || rig.device.status().recoveries == 1);
    assert!(rig.machine.text(EventKind::Lost).contains("(killed by SIGKILL)"));
    assert_eq!(rig.machine.told(), Vec::<String>::new());
    hang_up_again.shutdown(std::net::Shutdown::Both).unwrap();
    wait_until("stopped", || !rig.machine.told().is_empty());
    assert!(rig.machine.told()[0].contains("it died too often"), "{:?}", rig.machine.told());
}

#[test]
fn a_hung_back_end_holds_up_neither_resets_nor_who_asks() {
    let server = Server::new(Obedient::new(2));
    let rig = lost("wait", &server);
    // Somebody listens there, takes connections, and says nothing.
    let listener: UnixListener = bind(&server.path());
    let (stream, _) = listener.accept().unwrap();
    let begun = Instant::now();
    let status = rig.device.status();
    assert_eq!(status.state, DeviceState::Lost);
    rig.reset();
    assert!(begun.elapsed() < REPLY_DEADLINE / 2, "nobody waited");
    assert_eq!(rig.hear(), Said::ResetDone);
    assert!(begun.elapsed() < REPLY_DEADLINE * 3);
    drop(stream);
}

#[test]
fn a_back_end_that_goes_wrong_each_time_is_not_met_over_and_over() {
    let server = Server::new(Obedient::new(2));
    let rig = lost("wait", &server);
    let listener = bind(&server.path());
    let connections = thread::spawn(move || {
        let begun = Instant::now();
        listener.set_nonblocking(true).unwrap();
        let mut connections = 0;
        while begun.elapsed() < Duration::from_secs(1) {
            match listener.accept() {
                Ok((stream, _)) => {
                    connections += 1;
                    drop(misbehave(stream, 3, Wrong::Close));
                }
                Err(_nobody) => thread::sleep(Duration::from_millis(1)),
            }
        }
        connections
    });
    let connections = connections.join().unwrap();
    assert!((2..40).contains(&connections), "{connections} connections in a second");
    let events = rig.machine.events.lock().unwrap();
    let refusals = events.iter().filter(|event| event.kind == EventKind::Refused).count();
    assert!(refusals < 4, "{refusals} sentences about the same");
}

#[test]
fn a_device_that_never_gets_its_back_end_again_can_still_be_ended() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let hang_up = theirs.try_clone().unwrap();
    let _backend = Obedient::new(2).serve(theirs);
    let rig = rig(StreamPeer::new(ours));
    hang_up.shutdown(std::net::Shutdown::Both).unwrap();
    wait_until("refused", || rig.machine.saw(EventKind::Refused));
    let begun = Instant::now();
    rig.device.shutdown();
    assert!(begun.elapsed() < PATIENCE / 2);
}
