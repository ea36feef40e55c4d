//! Several pairs of queues: the kernel spreads packets over those that are in use.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use atoll_driver::{Buffer, FrontEnd, Memory, NetHeader, Process, Queue, TIMEOUT, VERSION_1};
use tempfile::TempDir;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserInflight;

use crate::line::{CONTROL, CTRL_VQ, ERR, GUEST_ANNOUNCE, Line, MQ, OK};
use crate::network::{self, GUEST_MAC, HOST_MAC, Wiretap, frame, ipv4};
use crate::rig::{MRG_RXBUF, USUAL};

const PAIRS: usize = 4;
const FLOWS: u16 = 64;
const BUFFER: u32 = 2048;

/// What outlives a device process.
type Record = (VhostUserInflight, File);

/// A device of four pairs, and a driver with buffers in all of them.
struct Card {
    process: Process,
    device: FrontEnd,
    receive: Vec<Queue>,
    transmit: Vec<Queue>,
    line: Option<Line>,
    wire: Wiretap,
    _dir: TempDir,
}

fn enter() -> Option<()> {
    network::enter()?;
    // A TAP is for several queues from the start or never.
    network::ip("link delete tap0");
    network::ip("tuntap add dev tap0 mode tap multi_queue");
    network::ip("link set tap0 up");
    Some(())
}

fn spawn(socket: &Path) -> Process {
    let path = format!("--socket-path={}", socket.display());
    let args = [path, "--tap=tap0".into(), format!("--queue-pairs={PAIRS}")];
    Process::spawn(env!("CARGO_BIN_EXE_atoll-net"), args).unwrap()
}

fn post(queue: &mut Queue, memory: &Memory, count: usize) {
    for _ in 0..count {
        let address = memory.allocate(BUFFER as usize, 2).unwrap();
        queue.add(&[Buffer::writable(address, BUFFER)]).unwrap();
    }
    queue.publish().unwrap();
}

impl Card {
    fn start(features: u64) -> Option<Self> {
        enter()?;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("net.sock");
        let process = spawn(&socket);
        let mut device = FrontEnd::connect(&socket, Memory::new(64 << 20).unwrap()).unwrap();
        assert_eq!(device.negotiate(features).unwrap() & features, features);
        let mut card = Self {
            process,
            device,
            receive: vec![],
            transmit: vec![],
            line: None,
            wire: Wiretap::open(),
            _dir: dir,
        };
        for pair in 0..PAIRS {
            card.receive.push(card.device.start_queue(2 * pair, 256).unwrap());
            card.transmit.push(card.device.start_queue(2 * pair + 1, 64).unwrap());
        }
        if features & CTRL_VQ != 0 {
            card.line = Some(Line::open(&mut card.device, 2 * PAIRS));
        }
        card.refill();
        Some(card)
    }

    fn refill(&mut self) {
        let memory = self.device.memory().clone();
        for queue in &mut self.receive {
            let missing = 128 - queue.outstanding();
            post(queue, &memory, missing);
        }
    }

    fn ask(&mut self, message: &[u8]) -> u8 {
        self.line.as_mut().expect("a control queue").ask(message)
    }

    fn use_pairs(&mut self, pairs: u16) -> u8 {
        self.ask(&[[4, 0], pairs.to_le_bytes()].concat())
    }

    /// Sends a packet of each of many flows to the guest; how many come in each queue.
    fn spread(&mut self) -> Vec<usize> {
        for flow in 0..FLOWS {
            let ports = [flow.to_be_bytes(), [0x10, 0x92], [0, 28], [0, 0]].concat();
            self.wire.send(&ipv4(true, 17, &[ports.as_slice(), &[flow as u8; 20]].concat()));
        }
        let mut counts = vec![0; PAIRS];
        let deadline = Instant::now() + TIMEOUT;
        while counts.iter().sum::<usize>() < usize::from(FLOWS) {
            assert!(Instant::now() < deadline, "only {counts:?} came");
            for (queue, count) in self.receive.iter_mut().zip(&mut counts) {
                while queue.take_used().unwrap().is_some() {
                    *count += 1;
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.refill();
        counts
    }

    /// Sends a frame in the queue of each pair; each arrives.
    fn check_sending(&mut self) {
        for pair in 0..PAIRS {
            let to_host = frame(HOST_MAC, GUEST_MAC, &[pair as u8; 60]);
            let packet = [NetHeader::default().to_bytes().as_slice(), &to_host].concat();
            let address = self.device.memory().put(&packet).unwrap();
            let queue = &mut self.transmit[pair];
            queue.submit(&[Buffer::readable(address, packet.len() as u32)]).unwrap();
            queue.wait(TIMEOUT).unwrap();
            assert_eq!(self.wire.receive(TIMEOUT), Some(to_host), "in pair {pair}");
        }
    }
}

fn in_use(counts: &[usize]) -> Vec<bool> {
    counts.iter().map(|count| *count > 0).collect()
}

#[test]
fn packets_come_in_as_many_pairs_as_the_driver_uses_and_go_out_in_all() {
    let Some(mut card) = Card::start(USUAL | CONTROL | MQ) else { return };
    assert_eq!(card.device.queue_count().unwrap(), 9);
    assert_eq!(card.device.config(8, 2).unwrap(), [PAIRS as u8, 0]);
    // virtio 1.3 §5.1.6.5.5: one until the driver asks for more; from when the control queue runs,
    // which an answer shows. What the kernel has put into the other queues until then is lost.
    assert_eq!(card.use_pairs(0), ERR);
    assert_eq!(in_use(&card.spread()), [true, false, false, false]);
    card.check_sending();
    for (pairs, expected) in [
        (4, [true; 4]),
        (2, [true, true, false, false]),
        (3, [true, true, true, false]),
        (1, [true, false, false, false]),
        (4, [true; 4]),
    ] {
        assert_eq!(card.use_pairs(pairs), OK);
        assert_eq!(in_use(&card.spread()), expected, "{pairs} pairs");
        card.check_sending();
    }
    for wrong in [0, 5, u16::MAX] {
        assert_eq!(card.use_pairs(wrong), ERR, "{wrong} pairs");
    }
    assert_eq!(in_use(&card.spread()), [true; 4]);
}

#[test]
fn pairs_change_again_and_again_and_nothing_is_left_behind_or_spins() {
    let Some(mut card) = Card::start(USUAL | CONTROL | MQ) else { return };
    let files = card.process.open_files().unwrap();
    let started = Instant::now();
    for round in 0..100 {
        assert_eq!(card.use_pairs(1 + round % 4), OK);
    }
    // Each takes a lock of the whole host.
    assert!(started.elapsed() >= Duration::from_millis(990), "a guest may not change them faster");
    assert_eq!(card.process.open_files().unwrap(), files);
    assert_eq!(in_use(&card.spread()), [true; 4]);
    assert_eq!(card.use_pairs(1), OK);
    std::thread::sleep(Duration::from_millis(100));
    let before = card.process.cpu_nanoseconds().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(card.process.cpu_nanoseconds().unwrap(), before, "all of it sleeps");
}

#[test]
fn a_front_end_that_keeps_the_control_queue_to_itself_uses_what_it_enables() {
    let Some(mut card) = Card::start(USUAL | MQ) else { return };
    assert_eq!(in_use(&card.spread()), [true; 4]);
    for pair in [3, 1] {
        card.device.enable(&card.receive[pair], false).unwrap();
    }
    assert_eq!(in_use(&card.spread()), [true, false, true, false]);
    card.device.enable(&card.receive[1], true).unwrap();
    assert_eq!(in_use(&card.spread()), [true, true, true, false]);
}

#[test]
fn a_driver_of_one_pair_has_its_control_queue_behind_it() {
    if enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("net.sock");
    let _process = spawn(&socket);
    let mut device = FrontEnd::connect(&socket, Memory::new(16 << 20).unwrap()).unwrap();
    device.negotiate(VERSION_1 | CONTROL).unwrap();
    let _receive = device.start_queue(0, 64).unwrap();
    let mut line = Line::open(&mut device, 2);
    assert_eq!(line.ask(&[0, 0, 1]), OK);
    assert_eq!(line.ask(&[4, 0, 1, 0]), ERR, "MQ was not accepted");
}

#[test]
fn a_deleted_interface_stops_every_pair_in_use() {
    let Some(mut card) = Card::start(USUAL | CONTROL | MQ) else { return };
    assert_eq!(card.use_pairs(4), OK);
    network::ip("link delete tap0");
    for queue in &card.receive {
        assert!(queue.wait_broken(TIMEOUT).unwrap(), "queue {} goes on", queue.index());
    }
    assert!(card.process.running().unwrap());
}

/// A driver whose device process dies, and which knows nothing of it.
#[test]
fn a_successor_uses_the_pairs_and_offloads_that_the_driver_chose() {
    if enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("net.sock");
    let memory = Memory::new(64 << 20).unwrap();
    let features = VERSION_1 | MRG_RXBUF | CONTROL | MQ;
    let mut queues: Vec<Queue> = Vec::new();
    let mut record: Option<Record> = None;
    let sizes = (0..=2 * PAIRS as u16).map(|index| (index, 256));
    for life in 0..3 {
        let mut process = spawn(&socket);
        let mut device = FrontEnd::connect(&socket, memory.clone()).unwrap();
        device.negotiate(features).unwrap();
        let wanted = VhostUserInflight::new(0, 0, 9, 256);
        let (layout, file) = record.take().unwrap_or_else(|| {
            device.exchange("GET_INFLIGHT_FD", |inner| inner.get_inflight_fd(&wanted)).unwrap()
        });
        let fd = file.as_raw_fd();
        device.exchange("SET_INFLIGHT_FD", |inner| inner.set_inflight_fd(&layout, fd)).unwrap();
        record = Some((layout, file));
        for (index, size) in sizes.clone() {
            if life == 0 {
                let mut queue = device.start_queue(index.into(), size).unwrap();
                if index % 2 == 0 && usize::from(index) < 2 * PAIRS {
                    post(&mut queue, &memory, 200);
                }
                queues.push(queue);
            } else {
                let queue = &queues[usize::from(index)];
                device.attach(queue, queue.ring().used_index().unwrap()).unwrap();
            }
        }
        if life == 0 {
            let message = memory.put(&[4, 0, 3, 0, 0]).unwrap();
            let control = &mut queues[2 * PAIRS];
            let buffers = [Buffer::readable(message, 4), Buffer::writable(message + 4, 1)];
            control.submit(&buffers).unwrap();
            control.wait(TIMEOUT).unwrap();
        } else {
            device.wait_config_change(TIMEOUT).unwrap();
            assert_ne!(device.offered() & GUEST_ANNOUNCE, 0);
            assert_eq!(device.config(6, 2).unwrap(), [3, 0], "the guest is to announce itself");
        }
        let wire = Wiretap::open();
        let counts = spread_over(&wire, &mut queues);
        assert_eq!(in_use(&counts), [true, true, true, false], "life {life}");
        process.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
        let _gone = process.wait();
        let _file = std::fs::remove_file(&socket);
    }
}

fn spread_over(wire: &Wiretap, queues: &mut [Queue]) -> Vec<usize> {
    for flow in 0..FLOWS {
        let ports = [flow.to_be_bytes(), [0x10, 0x92], [0, 28], [0, 0]].concat();
        wire.send(&ipv4(true, 17, &[ports.as_slice(), &[flow as u8; 20]].concat()));
    }
    let mut counts = vec![0; PAIRS];
    let deadline = Instant::now() + TIMEOUT;
    while counts.iter().sum::<usize>() < usize::from(FLOWS) {
        assert!(Instant::now() < deadline, "only {counts:?} came");
        for (pair, count) in counts.iter_mut().enumerate() {
            while queues[2 * pair].take_used().unwrap().is_some() {
                *count += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    counts
}
