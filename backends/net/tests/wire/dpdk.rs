//! DPDK's virtio-user as the driver, which nobody here wrote: `dpdk-testpmd` sends back what it gets.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use atoll_driver::Process;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::frames::pattern;
use crate::network::{self, EXPERIMENT, GUEST_MAC, HOST_MAC, Wiretap, frame, ipv4};

const TESTPMD: &str = "dpdk-testpmd";
/// DPDK takes its time to start, and polls where others want the processor, too.
const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough for an answer on a busy machine; a lost one fails the test after `PATIENCE`.
const ANSWER: Duration = Duration::from_millis(500);
const IPV4: u16 = 0x0800;
const PROBE: u8 = 0xff;

/// A card with DPDK as its guest.
struct Testpmd {
    _device: Process,
    driver: Process,
    wire: Wiretap,
    dir: TempDir,
}

/// In the driver's folder, what it says on standard output.
const SAID: &str = "said";

impl Testpmd {
    /// A card of so many pairs, and a driver of as many with more properties.
    fn start(pairs: u16, properties: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("net.sock").display().to_string();
        let device = Process::spawn(
            env!("CARGO_BIN_EXE_atoll-net"),
            [
                format!("--socket-path={socket}"),
                "--tap=tap0".into(),
                format!("--queue-pairs={pairs}"),
            ],
        )
        .unwrap();
        let cpu = a_cpu();
        let mut command = Command::new(TESTPMD);
        // One lcore for words, which sleeps, and one for frames, which does not.
        command.arg(format!("--lcores=0@{cpu},1@{cpu}"));
        // Memory that it can share without huge pages, and nothing left in the file system.
        command.args(["--no-huge", "-m", "64", "--single-file-segments"]);
        command.args(["--no-pci", "--no-shconf", "--no-telemetry"]);
        command.arg(format!("--vdev=net_virtio_user0,path={socket},queues={pairs},{properties}"));
        command.args(["--", "--forward-mode=macswap", "--auto-start", "--total-num-mbufs=4096"]);
        command.args([format!("--rxq={pairs}"), format!("--txq={pairs}")]);
        // It ends when it reads something, or nothing more.
        let said = File::create(dir.path().join(SAID)).unwrap();
        let driver = Process::run(command.stdin(Stdio::piped()).stdout(said)).unwrap();
        let mut testpmd = Self { _device: device, driver, wire: Wiretap::open(), dir };
        testpmd.wait();
        testpmd
    }

    /// Until it answers, and all that was asked meanwhile is answered.
    fn wait(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let probe = |number: u8| frame(GUEST_MAC, HOST_MAC, &[PROBE, number]);
        let answer = |number: u8| frame(HOST_MAC, GUEST_MAC, &[PROBE, number]);
        for number in 0.. {
            self.wire.send(&probe(number));
            let until = Instant::now() + ANSWER;
            while let Some(heard) =
                self.wire.receive(until.saturating_duration_since(Instant::now()))
            {
                if heard == answer(number) {
                    return;
                }
            }
            let log = self.driver.log();
            assert!(self.driver.running().unwrap(), "{TESTPMD} has ended: {log}");
            assert!(Instant::now() < deadline, "{TESTPMD} does not answer: {log}");
        }
    }

    /// Sends each frame of a burst and hears all of them again, turned round, in any order.
    fn check(&mut self, ether_type: u16, burst: &[Vec<u8>]) {
        let mut expected: Vec<_> = burst.iter().map(|frame| turned(frame)).collect();
        burst.iter().for_each(|frame| self.wire.send(frame));
        while !expected.is_empty() {
            let heard = self.wire.receive_of(ether_type, PATIENCE);
            let (missing, log) = (expected.len(), self.driver.log());
            assert!(heard.is_some(), "{missing} of {} frames are missing: {log}", burst.len());
            let place = expected.iter().position(|frame| Some(frame) == heard.as_ref());
            expected.swap_remove(place.expect("a frame that was sent, once and unchanged"));
        }
    }

    /// Has it end. Returns what it said.
    fn end(mut self) -> String {
        let stdin = self.driver.child().stdin.take();
        stdin.unwrap().write_all(b"\n").unwrap();
        let (status, log) = self.driver.wait().unwrap();
        assert!(status.success(), "{status}: {log}");
        fs::read_to_string(self.dir.path().join(SAID)).unwrap()
    }
}

fn turned(frame: &[u8]) -> Vec<u8> {
    [&frame[6..12], &frame[..6], &frame[12..]].concat()
}

/// One that this process may use.
fn a_cpu() -> usize {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap()).unwrap()
}

/// Whether DPDK is there; said once on the way if it is not.
fn installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|place| place.join(OsStr::new(TESTPMD)).is_file());
    if !there {
        eprintln!("skipped: there is no `{TESTPMD}`, which is in Debian's dpdk-dev");
    }
    there
}

#[test]
fn dpdk_gets_and_sends_frames_with_mergeable_buffers_and_without() {
    if !installed() || network::enter().is_none() {
        return;
    }
    for properties in ["mrg_rxbuf=1", "mrg_rxbuf=0", "mrg_rxbuf=0,in_order=0", "queue_size=64"] {
        let mut testpmd = Testpmd::start(1, properties);
        for round in 0..20 {
            let lengths = (0..32).map(|number| 46 + (round * 32 + number) * 2);
            let burst: Vec<_> =
                lengths.map(|len| frame(GUEST_MAC, HOST_MAC, &pattern(len))).collect();
            testpmd.check(EXPERIMENT, &burst);
        }
    }
}

#[test]
fn dpdk_gets_and_sends_frames_in_two_pairs_of_queues() {
    if !installed() || network::enter().is_none() {
        return;
    }
    network::ip("link delete tap0");
    network::ip("tuntap add dev tap0 mode tap multi_queue");
    network::ip("link set tap0 up");
    let mut testpmd = Testpmd::start(2, "mrg_rxbuf=1");
    // The kernel spreads them over both pairs.
    for round in 0..10_u8 {
        let flow = |flow: u16| {
            let ports = [flow.to_be_bytes(), [0x10, 0x92], [0, 28], [0, 0]].concat();
            ipv4(true, 17, &[ports.as_slice(), &[round; 20]].concat())
        };
        testpmd.check(IPV4, &(0..64).map(flow).collect::<Vec<_>>());
    }
    let said = testpmd.end();
    for queue in 0..2 {
        let used = format!("RX Port= 0/Queue= {queue} -> TX Port= 0/Queue= {queue}");
        assert!(said.contains(&used), "queue {queue} had nothing to do: {said}");
    }
}
