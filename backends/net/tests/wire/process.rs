//! The process as a whole: what it offers, costs, and how it ends.

use std::time::{Duration, Instant};

use atoll_driver::{FrontEnd, Memory, Process, TIMEOUT, VERSION_1};

use crate::network::{self, GUEST_MAC, HOST_MAC, frame};
use crate::rig::{MOMENT, RECEIVE, Rig, USUAL};

#[test]
fn the_front_end_may_leave_and_come_back() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    let files = rig.process.open_files().unwrap();
    for _ in 0..5 {
        rig.post(16, 1536);
        rig.check_alive();
        rig.reattach(USUAL);
    }
    rig.check_alive();
    assert_eq!(rig.process.open_files().unwrap(), files, "no descriptor is left behind");
}

#[test]
fn a_stopped_queue_says_where_to_go_on() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    rig.post(8, 1536);
    for _ in 0..3 {
        rig.wire.send(&frame(GUEST_MAC, HOST_MAC, &[1; 50]));
        rig.next_packet();
    }
    // Those that were taken ahead are given back.
    let base = rig.device.stop_queue(&rig.receive).unwrap();
    assert_eq!(base, 3);
    rig.device.attach(&rig.receive, base).unwrap();
    rig.check_alive();
}

#[test]
fn configuration_and_features_are_what_the_command_line_says() {
    if network::enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("net.sock");
    let args = [
        format!("--socket-path={}", socket.display()),
        "--tap=tap0".into(),
        "--mac=52:54:00:12:34:56".into(),
        "--mtu=1400".into(),
        "--speed=10000".into(),
    ];
    let mut process = Process::spawn(env!("CARGO_BIN_EXE_atoll-net"), args).unwrap();
    let mut device = FrontEnd::connect(&socket, Memory::new(1 << 20).unwrap()).unwrap();
    device.negotiate(VERSION_1).unwrap();
    let told = 1 << 5 | 1 << 3 | 1 << 16 | 1 << 63;
    assert_eq!(device.offered() & told, told, "MAC, MTU, STATUS and SPEED_DUPLEX");
    assert_eq!(device.queue_count().unwrap(), 3);
    let config = device.config(0, 17).unwrap();
    assert_eq!(config[..12], [0x52, 0x54, 0, 0x12, 0x34, 0x56, 1, 0, 1, 0, 0x78, 5]);
    assert_eq!(config[12..], [0x10, 0x27, 0, 0, 1], "its speed, and full duplex");
    assert!(device.write_config(0, &[2; 6]).is_err(), "the address cannot be changed");
    let (status, stderr) = process.terminate().unwrap();
    assert!(status.success(), "{status}: {stderr}");
    assert!(!socket.exists(), "the socket file is removed");
}

#[test]
fn what_the_command_line_does_not_say_is_not_offered() {
    let Some(rig) = Rig::start(USUAL) else { return };
    let unsaid = [(5, "MAC"), (3, "MTU"), (22, "MQ"), (63, "SPEED_DUPLEX")];
    for (bit, name) in unsaid {
        // A driver would take a field that means nothing for an address or for a limit.
        assert_eq!(rig.device.offered() & 1 << bit, 0, "{name}");
    }
}

#[test]
fn a_driver_from_before_virtio_1_is_not_served() {
    if network::enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("net.sock");
    let args = [format!("--socket-path={}", socket.display()), "--tap=tap0".into()];
    let mut process = Process::spawn(env!("CARGO_BIN_EXE_atoll-net"), args).unwrap();
    let mut device = FrontEnd::connect(&socket, Memory::new(1 << 20).unwrap()).unwrap();
    device.negotiate(0).unwrap();
    assert!(device.start_queue(RECEIVE, 64).is_err(), "its headers would be shorter");
    let (_, stderr) = process.terminate().unwrap();
    assert!(stderr.contains("did not accept VIRTIO_F_VERSION_1"), "{stderr}");
}

#[test]
fn at_rest_it_costs_no_processor_time_and_little_memory() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    rig.post(256, 1536);
    rig.check_alive();
    std::thread::sleep(MOMENT);
    let before = rig.process.cpu_nanoseconds().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(rig.process.cpu_nanoseconds().unwrap(), before, "it slept all the time");
    let anonymous = rig.process.anonymous_kib().unwrap();
    assert!(anonymous <= 1024, "{anonymous} KiB of heap and stacks");
    if cfg!(not(debug_assertions)) {
        let private = rig.process.private_kib().unwrap();
        assert!(private <= 3 * 1024, "{private} KiB of private memory");
    }
}

#[test]
fn a_card_that_is_polled_passes_frames_and_sleeps_at_rest() {
    if network::enter().is_none() {
        return;
    }
    let mut rig = Rig::serve(USUAL, &["--tap=tap0".into(), "--poll-us=200".into()]);
    // Often enough for polling to be tried.
    for _ in 0..50 {
        rig.post(1, 2048);
        rig.check_alive();
    }
    std::thread::sleep(MOMENT);
    let before = rig.process.cpu_nanoseconds().unwrap();
    std::thread::sleep(MOMENT);
    assert_eq!(rig.process.cpu_nanoseconds().unwrap(), before, "it slept all the time");
}

#[test]
fn a_pair_of_queues_has_a_thread_and_a_name() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    // A thread has its name once it runs: both rings have carried a frame.
    rig.post(256, 1536);
    rig.check_alive();
    let threads = rig.process.threads().unwrap();
    let rings: Vec<_> = threads.iter().filter(|name| name.starts_with("vring")).collect();
    assert_eq!(rings, ["vrings0-1"], "{threads:?}");
}

#[test]
fn at_a_socket_each_queue_has_a_thread() {
    if network::enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|name| dir.path().join(name).display().to_string());
    let rig = Rig::serve(VERSION_1, &["--dgram".into(), ours, theirs]);
    let deadline = Instant::now() + TIMEOUT;
    // A thread has its name once it runs.
    loop {
        let threads = rig.process.threads().unwrap();
        let mut rings: Vec<_> = threads.iter().filter(|name| name.starts_with("vring")).collect();
        rings.sort();
        if rings == ["vring0", "vring1"] {
            return;
        }
        assert!(Instant::now() < deadline, "{threads:?}");
    }
}
