//! Drivers that break the rules. The process lives and serves on.

use std::io::{Read, Write};

use atoll_driver::{
    Buffer, DESC_INDIRECT, DESC_NEXT, Descriptor, FrontEnd, HostileChain, INDIRECT_DESC, Memory,
    TIMEOUT,
};

use crate::rig::{Guest, MOMENT, RECEIVE, Rig, TRANSMIT, connect, eventually};

fn start() -> Rig {
    Rig::start(|dir| vec![format!("--unix={}", dir.join("tty").display())])
}

fn check_alive(rig: &mut Rig) {
    let mut client = connect(&rig.path("tty"));
    rig.reattach();
    rig.guest.print(b"alive");
    let mut got = [0; 5];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"alive");
}

#[test]
fn useless_chains_come_back_and_print_nothing() {
    let mut rig = start();
    let memory = rig.guest.device.memory().clone();
    let address = memory.put(b"not to be printed").unwrap();
    let chains: [&[Buffer]; 4] = [
        &[Buffer::writable(address, 8)],
        &[Buffer::readable(memory.end(), 8)],
        &[Buffer::readable(u64::MAX - 4, 8)],
        &[Buffer::writable(address, 8), Buffer::readable(address, 8)],
    ];
    for chain in chains {
        rig.guest.transmit.submit(chain).unwrap();
        assert_eq!(rig.guest.transmit.wait(TIMEOUT).unwrap().len, 0);
    }
    check_alive(&mut rig);
}

#[test]
fn hostile_chains_come_back() {
    let mut rig = start();
    // No receive buffers of ours, among which a hostile one would wait for its turn.
    let mut device = rig.reconnect();
    for queue in [RECEIVE, TRANSMIT] {
        let mut queue = device.start_queue(queue, 64).unwrap();
        for chain in HostileChain::all(device.memory(), queue.ring()).unwrap() {
            queue.submit_raw(&chain.descriptors).unwrap();
            let used = queue.wait(TIMEOUT);
            assert_eq!(used.map(|used| used.len).unwrap_or(1), 0, "{}", chain.name);
        }
    }
    drop(device);
    check_alive(&mut rig);
}

#[test]
fn looped_chains_and_wrong_indirect_tables_are_survived() {
    let mut rig = start();
    let address = rig.guest.device.memory().put(b"not to be printed").unwrap();
    let ring = rig.guest.transmit.ring().clone();
    let loops = Descriptor { addr: address, len: 8, flags: DESC_NEXT, next: 0 };
    let outside = Descriptor { next: 60_000, ..loops };
    let table = ring.write_table(&[loops]).unwrap();
    let indirect = |len| Descriptor { addr: table, len, flags: DESC_INDIRECT, next: 0 };
    for first in [loops, outside, indirect(16), indirect(0), indirect(17)] {
        ring.write_descriptor(0, first).unwrap();
        rig.guest.transmit.adopt(0);
        ring.push_head(0).unwrap();
        rig.guest.transmit.kick().unwrap();
        assert_eq!(rig.guest.transmit.wait(TIMEOUT).unwrap().len, 0);
    }
    check_alive(&mut rig);
}

#[test]
fn a_ring_whose_index_jumps_stops_alone() {
    let mut rig = start();
    rig.guest.transmit.ring().set_avail_index(0x7000).unwrap();
    rig.guest.transmit.kick().unwrap();
    assert!(rig.guest.transmit.wait_broken(TIMEOUT).unwrap(), "the front-end is told");
    let mut client = connect(&rig.path("tty"));
    client.write_all(b"still typing").unwrap();
    assert_eq!(rig.guest.read(12), b"still typing");
    drop(client);
    check_alive(&mut rig);
}

#[test]
fn a_guest_that_prints_without_end_keeps_nobody_from_attaching_and_typing() {
    let rig = start();
    rig.guest.device.disconnect();
    let memory = Memory::new(24 << 20).unwrap();
    let device = FrontEnd::connect(rig.path("front-end.sock"), memory.clone()).unwrap();
    let mut guest = Guest::negotiate(device, INDIRECT_DESC);
    // Each chain is a GiB long, and there are 60.
    let address = memory.allocate(16 << 20, 1).unwrap();
    let piece = Descriptor { addr: address, len: 16 << 20, flags: DESC_NEXT, next: 0 };
    let mut pieces: Vec<_> = (1..=64).map(|next| Descriptor { next, ..piece }).collect();
    pieces[63] = Descriptor { flags: 0, ..piece };
    let ring = guest.transmit.ring().clone();
    let table = ring.write_table(&pieces).unwrap();
    let chain = Descriptor { addr: table, len: 16 * 64, flags: DESC_INDIRECT, next: 0 };
    for head in 0..60 {
        ring.write_descriptor(head, chain).unwrap();
        guest.transmit.adopt(head);
        ring.push_head(head).unwrap();
    }
    guest.transmit.kick().unwrap();
    eventually("the first to be printed", || (ring.used_index().unwrap() > 0).then_some(()));
    let mut client = connect(&rig.path("tty"));
    client.write_all(b"stop").unwrap();
    assert_eq!(guest.read(4), b"stop");
    client.read_exact(&mut [0; 1000]).unwrap();
    let printed = ring.used_index().unwrap();
    assert!(printed < 60, "it has printed all before anybody came");
}

#[test]
fn a_call_that_blocks_keeps_no_ring_from_stopping_whoever_waits_for_whom() {
    let mut rig = start();
    let mut client = connect(&rig.path("tty"));
    rig.guest.transmit.make_call_block().unwrap();
    // Transmit waits to call while it has what both rings share, and then receive waits for that.
    let address = rig.guest.device.memory().put(b"x").unwrap();
    rig.guest.transmit.submit(&[Buffer::readable(address, 1)]).unwrap();
    let used = || (rig.guest.transmit.ring().used_index().unwrap() > 0).then_some(());
    eventually("it is printed", used);
    client.write_all(b"k").unwrap();
    std::thread::sleep(MOMENT);
    // The next one is served.
    rig.reconnect();
}
