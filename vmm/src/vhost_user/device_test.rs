//! A remote device as a whole: guest on one side, back-end on the other, its thread between.

use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::time::Instant;

use super::super::report::{DeviceState, EventKind, Vmm};
use super::super::test_doubles::{Obedient, Wrong, memory, misbehave, with_back_channel};
use super::super::test_rig::{
    Machine, PATIENCE, Said, Server, activation, count, rig, rig_of, spec, wait_until,
};
use super::super::{DeviceSpec, StreamPeer};
use super::*;

fn vmm() -> Arc<dyn Vmm> {
    Arc::new(Machine::default())
}

#[test]
fn a_guest_starts_resets_and_starts_again_on_one_connection() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (backend, thread) = Obedient::new(2).serve(theirs);
    let rig = rig(StreamPeer::new(ours));
    for boot in 1..=3 {
        rig.device.start(activation());
        wait_until("rings enabled", || count(&backend, "enable 1 true") == boot);
        rig.reset();
        assert_eq!(rig.hear(), Said::ResetDone);
        assert_eq!(count(&backend, "stop 0"), boot);
        assert_eq!(count(&backend, "stop 1"), boot);
    }
    rig.device.shutdown();
    thread.join().unwrap();
    assert_eq!(count(&backend, "owner"), 1);
}

#[test]
fn a_new_boot_waits_until_the_rings_are_back() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (backend, _thread) = Obedient::new(2).serve(theirs);
    let rig = rig(StreamPeer::new(ours));
    rig.device.start(activation());
    wait_until("rings enabled", || count(&backend, "enable 1 true") == 1);
    for port in rig.device.queues() {
        port.kick.signal();
    }
    rig.device.quiesce();
    assert_eq!(count(&backend, "stop 1"), 1);
    assert!(rig.device.queues().iter().all(|port| !port.kick.is_signalled()));
    rig.device.quiesce();
    assert_eq!(count(&backend, "stop 1"), 1, "nothing to stop");
}

#[test]
fn shutting_down_takes_the_rings_back_first() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (backend, thread) = Obedient::new(2).serve(theirs);
    let rig = rig(StreamPeer::new(ours));
    rig.device.start(activation());
    wait_until("rings enabled", || count(&backend, "enable 1 true") == 1);
    rig.device.shutdown();
    rig.device.shutdown();
    thread.join().unwrap();
    assert_eq!(backend.lock().unwrap().log.last().unwrap(), "stop 1");
}

#[test]
fn the_guest_sees_as_many_queues_as_there_are() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (_backend, _thread) = Obedient::new(64).serve(theirs);
    let rig = rig(StreamPeer::new(ours));
    assert_eq!(rig.device.queues().len(), 2);
    assert_eq!(rig.device.config()[34..], [2, 0]);
    assert_eq!(rig.device.features(), 1 << 32 | 1 << 29 | 1 << 12 | 1 << 9);
}

#[test]
fn a_configuration_change_reaches_the_guest() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (sender, channels) = channel();
    with_back_channel(theirs, sender);
    let rig = rig(StreamPeer::new(ours));
    let back = channels.recv().unwrap();
    for _ in 0..3 {
        // CONFIG_CHANGE_MSG.
        back.send(2, 0, &[], &[], Instant::now() + PATIENCE).unwrap();
        assert!(matches!(rig.hear(), Said::Config(_, true)));
    }
    drop(back);
    rig.reset();
    assert_eq!(rig.hear(), Said::ResetDone);
}

#[test]
fn configuration_writes_reach_the_back_end_and_come_back_as_it_took_them() {
    for (read_only, seen) in [(false, 9), (true, 0)] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut obedient = Obedient::new(2);
        obedient.read_only = read_only;
        let (_backend, _thread) = obedient.serve(theirs);
        let rig = rig(StreamPeer::new(ours));
        rig.device.write_config(32, &[9]);
        match rig.hear() {
            Said::Config(config, false) => assert_eq!(config[32], seen),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn rings_outside_memory_are_the_guests_own_trouble() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (backend, _thread) = Obedient::new(2).serve(theirs);
    let rig = rig(StreamPeer::new(ours));
    let mut wild = activation();
    wild.rings[1].used = 1 << 40;
    rig.device.start(wild);
    assert_eq!(rig.hear(), Said::NeedsReset);
    rig.reset();
    assert_eq!(rig.hear(), Said::ResetDone);
    rig.device.start(activation());
    wait_until("rings enabled", || count(&backend, "enable 1 true") == 1);
    assert_eq!(count(&backend, "stop 0"), 0);
}

#[test]
fn a_ring_that_the_back_end_gives_up_on_needs_a_reset() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (backend, _thread) = Obedient::new(2).serve(theirs);
    let rig = rig(StreamPeer::new(ours));
    rig.device.start(activation());
    wait_until("rings enabled", || count(&backend, "enable 1 true") == 1);
    let err = backend.lock().unwrap().errs[1].take().unwrap();
    std::io::Write::write_all(&mut &err, &1_u64.to_ne_bytes()).unwrap();
    assert_eq!(rig.hear(), Said::NeedsReset);
}

#[test]
fn a_back_end_that_dies_leaves_a_device_that_still_answers_resets() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let hang_up = theirs.try_clone().unwrap();
    let (backend, _thread) = Obedient::new(2).serve(theirs);
    let policy = "reset".parse().unwrap();
    let rig = rig_of(DeviceSpec { policy, ..spec(StreamPeer::new(ours)) });
    rig.device.start(activation());
    wait_until("rings enabled", || count(&backend, "enable 1 true") == 1);
    hang_up.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(rig.hear(), Said::NeedsReset);
    rig.reset();
    assert_eq!(rig.hear(), Said::ResetDone);
    rig.device.start(activation());
    rig.device.write_config(0, &[1]);
    rig.device.quiesce();
    assert_eq!(rig.hear(), Said::ResetDone);
}

#[test]
fn a_back_end_that_hangs_is_given_up_and_no_boot_waits_for_it() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (backend, _thread) = Obedient::new(2).serve(theirs);
    let rig = rig(StreamPeer::new(ours));
    rig.device.start(activation());
    wait_until("rings enabled", || count(&backend, "enable 1 true") == 1);
    let hung = backend.lock().unwrap();
    let start = Instant::now();
    rig.device.quiesce();
    assert!(start.elapsed() < STOP_DEADLINE * 3);
    assert_eq!(rig.hear(), Said::ResetDone);
    drop(hung);
}

#[test]
fn a_failed_connection_names_device_and_peer() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let _backend = misbehave(theirs, 0, Wrong::Garbage);
    let error =
        RemoteDevice::connect(spec(StreamPeer::new(ours)), &memory(), &vmm()).err().unwrap();
    let sentence = error.sentence();
    assert!(
        sentence.starts_with("device disk0 (blk) at its own process: GET_FEATURES: "),
        "{sentence}"
    );
}

#[test]
fn threads_end_with_their_devices() {
    let threads = || {
        std::fs::read_dir("/proc/self/task").unwrap().filter(|task| {
            let name = task.as_ref().unwrap().path().join("comm");
            std::fs::read_to_string(name).is_ok_and(|name| name.trim() == "dev-leak-check")
        })
    };
    for _ in 0..20 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_backend, _thread) = Obedient::new(2).serve(theirs);
        let spec = DeviceSpec { id: "leak-check".into(), ..spec(StreamPeer::new(ours)) };
        let device = RemoteDevice::connect(spec, &memory(), &vmm()).unwrap();
        // A thread gives itself its name.
        wait_until("the thread's name", || threads().count() == 1);
        drop(device);
        // It was joined; the kernel takes it off the list a moment later.
        wait_until("the thread's end", || threads().count() == 0);
    }
}

#[test]
fn a_device_says_how_it_is() {
    let server = Server::new(Obedient::new(2));
    let policy = "pause:30:stop".parse().unwrap();
    let rig = rig_of(DeviceSpec { policy, ..spec(server.peer()) });
    rig.device.start(activation());
    server.runs(1);
    wait_until("it is noted", || rig.device.status().inflight);
    let status = rig.device.status();
    assert_eq!((status.id.as_str(), status.r#type), ("disk0", "blk"));
    assert_eq!(status.state, DeviceState::Active);
    assert_eq!(status.policy, "pause:30:stop");
    assert_eq!(status.peer.socket, Some(server.path()));
    assert_eq!(status.features, ["VIRTIO_F_VERSION_1"]);
    assert!(status.protocol_features.contains(&"INFLIGHT_SHMFD".to_owned()), "{status:?}");
    assert_eq!(status.queues.len(), 2);
    assert_eq!((status.lost_for_ms, status.recoveries, status.last_error), (None, 0, None));
    rig.reset();
    assert_eq!(rig.hear(), Said::ResetDone);
    let status = rig.device.status();
    assert_eq!((status.state, status.queues.len()), (DeviceState::Negotiated, 0));
    assert!(!status.inflight);
    rig.device.shutdown();
    assert!(rig.machine.saw(EventKind::Closed));
}
