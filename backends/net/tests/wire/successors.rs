//! A device process dies, and another takes its place: it goes on with what the driver chose, which
//! the driver does not say again.

use std::os::fd::AsRawFd;

use atoll_driver::{Buffer, FrontEnd, Memory, Process, Queue, TIMEOUT, VERSION_1};
use nix::sys::signal::Signal;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserInflight;

use crate::frames::{pattern, segmented, tcp_segment};
use crate::line::CONTROL;
use crate::network::{self, Wiretap};
use crate::rig::{GUEST_CSUM, GUEST_TSO4, MRG_RXBUF, RECEIVE};

const BUFFER: u32 = 2048;
const CONTROL_QUEUE: usize = 2;
const FEATURES: u64 = VERSION_1 | MRG_RXBUF | GUEST_CSUM | GUEST_TSO4 | CONTROL;
/// The buffers that four segments fill: one each where the host has finished them, and all of them
/// like one packet where that is left to the guest.
const FINISHED: [u32; 4] = [1514; 4];
const UNFINISHED: [u32; 3] = [BUFFER, BUFFER, 12 + 54 + 4 * 1448 - 2 * BUFFER];

fn post(queue: &mut Queue, memory: &Memory, count: usize) {
    for _ in 0..count {
        let address = memory.allocate(BUFFER as usize, 2).unwrap();
        queue.add(&[Buffer::writable(address, BUFFER)]).unwrap();
    }
    queue.publish().unwrap();
}

/// Sends segments to the guest; how much of which buffers they fill.
fn filled(queue: &mut Queue, count: usize) -> Vec<u32> {
    Wiretap::open().send_with(segmented(), &tcp_segment(&pattern(4 * 1448)));
    (0..count).map(|_| queue.wait(TIMEOUT).unwrap().len).collect()
}

fn choose(queue: &mut Queue, memory: &Memory, offloads: u64) {
    let message = [[5, 0].as_slice(), &offloads.to_le_bytes(), &[0xaa]].concat();
    let at = memory.put(&message).unwrap();
    queue.submit(&[Buffer::readable(at, 10), Buffer::writable(at + 10, 1)]).unwrap();
    queue.wait(TIMEOUT).unwrap();
    assert_eq!(memory.get(at + 10, 1).unwrap(), [0], "it is done");
}

#[test]
fn a_successor_leaves_to_the_guest_what_the_driver_chose_and_nothing_that_it_did_not_accept() {
    let all = GUEST_CSUM | GUEST_TSO4;
    for (chosen, accepted, expected) in [
        (0, FEATURES, &FINISHED[..]),
        (all, FEATURES, &UNFINISHED),
        (all, FEATURES & !GUEST_TSO4, &FINISHED),
    ] {
        if network::enter().is_none() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("net.sock");
        let memory = Memory::new(4 << 20).unwrap();
        let spawn = || {
            let args = [format!("--socket-path={}", socket.display()), "--tap=tap0".into()];
            let process = Process::spawn(env!("CARGO_BIN_EXE_atoll-net"), args).unwrap();
            (process, FrontEnd::connect(&socket, memory.clone()).unwrap())
        };
        let (mut process, mut device) = spawn();
        device.negotiate(FEATURES).unwrap();
        let wanted = VhostUserInflight::new(0, 0, 3, 64);
        let (layout, record) =
            device.exchange("GET_INFLIGHT_FD", |inner| inner.get_inflight_fd(&wanted)).unwrap();
        let record_fd = record.as_raw_fd();
        let keep = |device: &mut FrontEnd| {
            let set = device
                .exchange("SET_INFLIGHT_FD", |inner| inner.set_inflight_fd(&layout, record_fd));
            set.unwrap();
        };
        keep(&mut device);
        let mut receive = device.start_queue(RECEIVE, 64).unwrap();
        let mut control = device.start_queue(CONTROL_QUEUE, 64).unwrap();
        post(&mut receive, &memory, 32);
        choose(&mut control, &memory, chosen);
        process.signal(Signal::SIGKILL).unwrap();
        let _gone = process.wait();
        std::fs::remove_file(&socket).unwrap();

        let (_process, mut device) = spawn();
        device.negotiate(accepted).unwrap();
        keep(&mut device);
        for queue in [&receive, &control] {
            device.attach(queue, queue.ring().used_index().unwrap()).unwrap();
        }
        let got = filled(&mut receive, expected.len());
        assert_eq!(got, expected, "{chosen:#x} was chosen, of {accepted:#x}");
    }
}
