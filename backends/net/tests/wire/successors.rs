//! A device process dies, and another takes its place: it goes on with what the driver chose, which
//! the driver does not say again.

use std::fs::File;
use std::os::fd::AsRawFd;

use atoll_driver::{Buffer, FrontEnd, Memory, Process, Queue, TIMEOUT, VERSION_1};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserInflight;

use crate::frames::{pattern, segmented, tcp_segment};
use crate::line::{CONTROL, Line, OK};
use crate::network::{self, EXPERIMENT, GUEST_MAC, HOST_MAC, Wiretap, frame};
use crate::rig::{GUEST_CSUM, GUEST_TSO4, MRG_RXBUF, RECEIVE};

const BUFFER: u32 = 2048;
const CONTROL_QUEUE: usize = 2;
const STATUS: u64 = 1 << 16;
const FEATURES: u64 = VERSION_1 | MRG_RXBUF | GUEST_CSUM | GUEST_TSO4 | STATUS | CONTROL;
/// The buffers that four segments fill: one each where the host has finished them, and all of them
/// like one packet where that is left to the guest.
const FINISHED: [u32; 4] = [12 + 54 + 1448; 4];
const UNFINISHED: [u32; 3] = [BUFFER, BUFFER, 12 + 54 + 4 * 1448 - 2 * BUFFER];

/// A driver, and the device process that it has at the time.
struct Card {
    process: Process,
    device: FrontEnd,
    receive: Queue,
    line: Line,
    /// What is in flight, where the front-end keeps that.
    record: Option<(VhostUserInflight, File)>,
    dir: TempDir,
}

fn spawn(dir: &TempDir, memory: Memory, features: u64) -> (Process, FrontEnd) {
    let socket = dir.path().join("net.sock");
    let args = [format!("--socket-path={}", socket.display()), "--tap=tap0".into()];
    let args = args.into_iter().chain(["--mac=02:00:00:00:00:02".into()]);
    let process = Process::spawn(env!("CARGO_BIN_EXE_atoll-net"), args).unwrap();
    let mut device = FrontEnd::connect(&socket, memory).unwrap();
    device.negotiate(features).unwrap();
    (process, device)
}

fn share(device: &mut FrontEnd, record: &Option<(VhostUserInflight, File)>) {
    if let Some((layout, file)) = record {
        let fd = file.as_raw_fd();
        device.exchange("SET_INFLIGHT_FD", |inner| inner.set_inflight_fd(layout, fd)).unwrap();
    }
}

impl Card {
    fn start(keeps_record: bool) -> Option<Self> {
        network::enter()?;
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(4 << 20).unwrap();
        let (process, mut device) = spawn(&dir, memory.clone(), FEATURES);
        let wanted = VhostUserInflight::new(0, 0, 3, 64);
        let record = keeps_record.then(|| {
            device.exchange("GET_INFLIGHT_FD", |inner| inner.get_inflight_fd(&wanted)).unwrap()
        });
        share(&mut device, &record);
        let mut receive = device.start_queue(RECEIVE, 64).unwrap();
        for _ in 0..32 {
            let address = memory.allocate(BUFFER as usize, 2).unwrap();
            receive.add(&[Buffer::writable(address, BUFFER)]).unwrap();
        }
        receive.publish().unwrap();
        let line = Line::open(&mut device, CONTROL_QUEUE);
        Some(Self { process, device, receive, line, record, dir })
    }

    /// The process dies, and another serves the same driver, as one that has accepted `features`.
    fn succeed(&mut self, features: u64) {
        self.process.signal(Signal::SIGKILL).unwrap();
        let _gone = self.process.wait();
        std::fs::remove_file(self.dir.path().join("net.sock")).unwrap();
        let memory = self.device.memory().clone();
        (self.process, self.device) = spawn(&self.dir, memory, features);
        share(&mut self.device, &self.record);
        for queue in [&self.receive, &self.line.queue] {
            self.device.attach(queue, queue.ring().used_index().unwrap()).unwrap();
        }
    }

    /// The lengths of the next packets.
    fn received(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.receive.wait(TIMEOUT).unwrap().len).collect()
    }
}

#[test]
fn a_successor_leaves_to_the_guest_what_the_driver_chose_and_nothing_that_it_did_not_accept() {
    let all = GUEST_CSUM | GUEST_TSO4;
    for (keeps_record, chosen, accepted, expected) in [
        (true, 0, FEATURES, &FINISHED[..]),
        (true, all, FEATURES, &UNFINISHED),
        (true, all, FEATURES & !GUEST_TSO4, &FINISHED),
        // Nobody knows what was chosen.
        (false, 0, FEATURES, &UNFINISHED),
    ] {
        let Some(mut card) = Card::start(keeps_record) else { return };
        assert_eq!(card.line.ask(&[[5, 0].as_slice(), &chosen.to_le_bytes()].concat()), OK);
        card.succeed(accepted);
        Wiretap::open().send_with(segmented(), &tcp_segment(&pattern(4 * 1448)));
        let got = card.received(expected.len());
        assert_eq!(got, expected, "{chosen:#x} was chosen, of {accepted:#x}");
    }
}

#[test]
fn a_successor_lets_every_packet_pass_and_has_the_guest_announce_itself() {
    for keeps_record in [true, false] {
        let Some(mut card) = Card::start(keeps_record) else { return };
        let stranger = frame([2, 0, 0, 0, 0, 9], HOST_MAC, &[1; 60]);
        let tag = [[0x81, 0], 5_u16.to_be_bytes(), EXPERIMENT.to_be_bytes()];
        let tagged = [&GUEST_MAC, &HOST_MAC, tag.as_flattened(), &[9; 62]].concat();
        let last = frame(GUEST_MAC, HOST_MAC, &[2; 100]);
        let send = || [&stranger, &tagged, &last].map(|frame| Wiretap::open().send(frame));
        let lens = [&stranger, &tagged, &last].map(|frame| frame.len() as u32 + 12);
        assert_eq!(card.line.ask(&[0, 0, 0]), OK, "not promiscuous");
        send();
        assert_eq!(card.received(1), lens[2..], "only what is for the guest, and no VLAN");
        card.succeed(FEATURES);
        card.device.wait_config_change(TIMEOUT).unwrap();
        assert_eq!(card.device.config(6, 2).unwrap(), [3, 0], "it is to announce itself");
        send();
        assert_eq!(card.received(3), lens);
        // The next word about addresses counts, but which VLANs it wants is not known.
        assert_eq!(card.line.ask(&[0, 0, 0]), OK);
        send();
        assert_eq!(card.received(2), lens[1..]);
        assert_eq!(card.line.ask(&[3, 0]), OK);
        assert_eq!(card.device.config(6, 2).unwrap(), [1, 0], "it has done so");
    }
}
