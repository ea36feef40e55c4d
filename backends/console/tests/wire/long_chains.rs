//! Chains that are longer than what a slow reader has room for, when their ring stops: it may go on, or be
//! another guest's.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use atoll_driver::{Buffer, FrontEnd, Memory, Queue, TIMEOUT};
use vhost::vhost_user::message::VhostUserInflight;
use vhost::vhost_user::{Frontend, VhostUserFrontend};

use crate::rig::{Guest, MOMENT, Rig, TRANSMIT, connect, pattern, reader};

/// More than a reader's socket and the process keep together.
const LONG: usize = 4 << 20;

fn start() -> Rig {
    Rig::start(|dir| vec![format!("--unix={}", dir.join("tty").display())])
}

/// A guest that has room to print a long chain.
fn large_guest(rig: &Rig) -> Guest {
    rig.guest.device.disconnect();
    let memory = Memory::new(10 << 20).unwrap();
    let device = FrontEnd::connect(rig.path("front-end.sock"), memory).unwrap();
    Guest::negotiate(device, 0)
}

/// A client that is known to read: before that, all would be taken at once.
fn client(tty: &Path, guest: &mut Guest) -> UnixStream {
    let mut client = connect(tty);
    guest.print(b"!");
    client.read_exact(&mut [0]).unwrap();
    client
}

/// Prints a long chain at once, of which a client that does not read gets some before the ring stops.
fn print_half(guest: &mut Guest, client: &mut UnixStream, position: u16) {
    let address = guest.device.memory().put(&pattern(LONG)).unwrap();
    guest.transmit.submit(&[Buffer::readable(address, LONG as u32)]).unwrap();
    client.read_exact(&mut [0]).unwrap();
    let base = guest.device.stop_queue(&guest.transmit).unwrap();
    assert_eq!(base, position, "it is to be gone on with");
}

/// A guest of whose second chain a client has got some when its ring stops.
fn half_printed(rig: &Rig) -> (Guest, UnixStream) {
    let mut guest = large_guest(rig);
    let mut client = client(&rig.path("tty"), &mut guest);
    print_half(&mut guest, &mut client, 1);
    (guest, client)
}

/// The same with the first chain that the guest prints.
fn first_half_printed(rig: &mut Rig) -> (Guest, UnixStream) {
    let mut client = client(&rig.path("tty"), &mut rig.guest);
    let mut guest = large_guest(rig);
    print_half(&mut guest, &mut client, 0);
    (guest, client)
}

/// Goes on with the ring that was stopped: nothing is missing of the chain, and nothing comes twice.
fn goes_on(guest: &mut Guest, client: UnixStream, base: u16) {
    let reading = reader(client, LONG - 1);
    guest.device.attach(&guest.transmit, base).unwrap();
    guest.transmit.wait(TIMEOUT).unwrap();
    assert!(reading.join().unwrap() == pattern(LONG)[1..], "the output differs");
}

/// Reads what was printed of the long chain, and then `next`.
fn reads_on(mut client: UnixStream, next: Vec<u8>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let (mut got, mut piece) = (Vec::new(), vec![0; 64 << 10]);
        while !got.ends_with(&next) {
            let count = client.read(&mut piece).unwrap();
            assert_ne!(count, 0, "it is cut off");
            got.extend_from_slice(&piece[..count]);
        }
        let before = got.len() - next.len();
        assert!(got[..before] == pattern(LONG)[1..=before], "the output differs");
    })
}

#[test]
fn what_was_printed_in_part_when_the_ring_stopped_is_not_printed_twice() {
    let rig = start();
    let (mut guest, client) = half_printed(&rig);
    goes_on(&mut guest, client, 1);
}

#[test]
fn the_first_chain_of_a_ring_is_not_printed_twice_either() {
    let mut rig = start();
    let (mut guest, client) = first_half_printed(&mut rig);
    goes_on(&mut guest, client, 0);
}

#[test]
fn a_chain_that_a_process_before_left_in_flight_is_not_printed_twice_either() {
    let mut rig = start();
    let mut client = client(&rig.path("tty"), &mut rig.guest);
    let mut guest = large_guest(&rig);
    guest.device.stop_queue(&guest.transmit).unwrap();
    let wanted = VhostUserInflight::new(0, 0, 2, 64);
    let get = |inner: &mut Frontend| inner.get_inflight_fd(&wanted);
    let (layout, record) = guest.device.exchange("GET_INFLIGHT_FD", get).unwrap();
    // vhost-user, "Inflight I/O tracking": the second queue's version and size, and that chain 0 is in
    // flight. A queue's part is a multiple of 64 bytes, for as many descriptors as were asked for.
    let part = (16 + 64 * 16_u64).next_multiple_of(64);
    record.write_all_at(&[1, 0, 64, 0], part + 8).unwrap();
    record.write_all_at(&[1], part + 16).unwrap();
    let set = |inner: &mut Frontend| inner.set_inflight_fd(&layout, record.as_raw_fd());
    guest.device.exchange("SET_INFLIGHT_FD", set).unwrap();
    let address = guest.device.memory().put(&pattern(LONG)).unwrap();
    let head = guest.transmit.submit(&[Buffer::readable(address, LONG as u32)]).unwrap();
    assert_eq!(head, 0);
    guest.device.attach(&guest.transmit, 0).unwrap();
    client.read_exact(&mut [0]).unwrap();
    assert_eq!(guest.device.stop_queue(&guest.transmit).unwrap(), 1, "it was taken before");
    goes_on(&mut guest, client, 1);
}

#[test]
fn what_was_printed_in_part_is_nothing_to_the_next_guest() {
    let mut rig = start();
    let (guest, client) = half_printed(&rig);
    guest.device.disconnect();
    rig.reattach();
    let reading = reads_on(client, b"boot".to_vec());
    rig.guest.print(b"boot");
    reading.join().unwrap();
}

/// A front-end that only stops the rings of a guest that resets its device, and starts the next ones.
#[test]
fn what_was_printed_in_part_is_nothing_to_a_guest_that_boots_again() {
    let mut rig = start();
    for first in [false, true] {
        let half = if first { first_half_printed(&mut rig) } else { half_printed(&rig) };
        let (mut guest, client) = half;
        let reading = reads_on(client, b"boot".to_vec());
        guest.transmit = guest.device.start_queue(TRANSMIT, 64).unwrap();
        guest.print(b"boot");
        reading.join().unwrap();
        guest.device.disconnect();
        rig.reattach();
    }
}

/// The guest boots again, and prints `first` and "boot" before its ring starts.
fn prints_early(guest: &mut Guest, client: UnixStream, first: &[u8]) {
    let reading = reads_on(client, [first, b"boot"].concat());
    let memory = guest.device.memory().clone();
    guest.transmit = Queue::new(&memory, TRANSMIT, 64, guest.device.features()).unwrap();
    for text in [first, b"boot"] {
        let address = memory.put(text).unwrap();
        guest.transmit.submit(&[Buffer::readable(address, text.len() as u32)]).unwrap();
    }
    guest.device.attach(&guest.transmit, 0).unwrap();
    reading.join().unwrap();
}

#[test]
fn what_was_printed_in_part_is_nothing_to_one_that_prints_before_its_ring_starts() {
    let mut rig = start();
    let (mut guest, client) = half_printed(&rig);
    prints_early(&mut guest, client, &pattern(LONG));
    guest.device.disconnect();
    rig.reattach();
    let (mut guest, client) = first_half_printed(&mut rig);
    prints_early(&mut guest, client, b"The ");
}

#[test]
fn what_was_printed_in_part_is_nothing_to_one_that_prints_as_much_at_once() {
    let mut rig = start();
    let (mut guest, client) = first_half_printed(&mut rig);
    let reading = reads_on(client, [&pattern(LONG)[..], b"boot"].concat());
    guest.transmit = guest.device.start_queue(TRANSMIT, 64).unwrap();
    // A driver has its device running before it prints.
    thread::sleep(MOMENT);
    let address = guest.device.memory().put(&pattern(LONG)).unwrap();
    guest.transmit.submit(&[Buffer::readable(address, LONG as u32)]).unwrap();
    guest.transmit.wait(TIMEOUT).unwrap();
    guest.print(b"boot");
    reading.join().unwrap();
}
