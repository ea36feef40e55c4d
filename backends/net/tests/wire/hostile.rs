//! Drivers and hosts that break the rules. The process lives and serves on.

use std::os::fd::AsRawFd;

use atoll_driver::{
    Buffer, DESC_INDIRECT, DESC_NEXT, Descriptor, HostileChain, NET_HEADER, NetHeader, TIMEOUT,
    Used,
};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserInflight;

use crate::network::{self, GUEST_MAC, HOST_MAC, frame};
use crate::rig::{MOMENT, MRG_RXBUF, Rig, USUAL};

#[test]
fn hostile_headers_are_dropped_and_completed() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    let plain = NetHeader::default();
    let rubbish = [
        NetHeader { flags: 1, csum_start: 0xffff, csum_offset: 0xffff, ..plain },
        NetHeader { flags: 1, csum_start: 34, csum_offset: 500, ..plain },
        NetHeader { gso_type: 1, gso_size: 0, ..plain },
        NetHeader { flags: 1, csum_start: 34, gso_type: 1, gso_size: 0, ..plain },
        NetHeader { flags: 1, csum_start: 34, gso_type: 1, gso_size: 9, hdr_len: 9999, ..plain },
        NetHeader { gso_type: 0x7f, gso_size: 1, ..plain },
        NetHeader { flags: 0xff, gso_type: 0xff, ..plain },
    ];
    let victim = frame(HOST_MAC, GUEST_MAC, &[0xee; 200]);
    for header in rubbish {
        rig.send(header, &victim);
    }
    assert_eq!(rig.wire.receive(MOMENT), None, "nothing reaches the host");
    rig.check_alive();
}

#[test]
fn hostile_transmit_chains_are_completed_and_nothing_is_sent() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    let memory = rig.memory();
    let good = memory.put(&[0; NET_HEADER + 60]).unwrap();
    let huge = memory.allocate(1 << 20, 16).unwrap();
    let header = Buffer::readable(good, NET_HEADER as u32);
    let chains: [&[Buffer]; 7] = [
        &[Buffer::readable(good, 3)],
        &[header],
        &[header, Buffer::readable(good, 5)],
        &[header, Buffer::readable(huge, 1 << 20)],
        &[header, Buffer::readable(memory.end(), 60)],
        &[header, Buffer::readable(u64::MAX - 8, 60)],
        &[Buffer::writable(good, 72), Buffer::readable(good, 72)],
    ];
    for chain in chains {
        rig.transmit.submit(chain).unwrap();
        assert_eq!(rig.transmit.wait(TIMEOUT).unwrap().len, 0);
    }
    assert_eq!(rig.wire.receive(MOMENT), None, "nothing reaches the host");
    rig.check_alive();
}

#[test]
fn looped_chains_and_wrong_indirect_tables_are_survived() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    let address = rig.memory().put(&[0; 72]).unwrap();
    let ring = rig.transmit.ring().clone();
    let loops = Descriptor { addr: address, len: 72, flags: DESC_NEXT, next: 0 };
    let outside = Descriptor { next: 60_000, ..loops };
    let table = ring.write_table(&[loops]).unwrap();
    let indirect = |len| Descriptor { addr: table, len, flags: DESC_INDIRECT, next: 0 };
    for first in [loops, outside, indirect(16), indirect(0), indirect(17), indirect(1 << 31)] {
        ring.write_descriptor(0, first).unwrap();
        rig.transmit.adopt(0);
        ring.push_head(0).unwrap();
        rig.transmit.kick().unwrap();
        assert_eq!(rig.transmit.wait(TIMEOUT).unwrap().len, 0);
    }
    rig.check_alive();
}

#[test]
fn hostile_chains_come_back() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    let memory = rig.memory();
    for queue in [&mut rig.receive, &mut rig.transmit] {
        for chain in HostileChain::all(&memory, queue.ring()).unwrap() {
            queue.submit_raw(&chain.descriptors).unwrap();
            let used = queue.wait(TIMEOUT);
            assert_eq!(used.map(|used| used.len).unwrap_or(1), 0, "{}", chain.name);
        }
    }
    assert_eq!(rig.wire.receive(MOMENT), None, "nothing reaches the host");
    rig.check_alive();
}

#[test]
fn useless_receive_buffers_come_back_empty() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    let address = rig.memory().allocate(4096, 16).unwrap();
    let end = rig.memory().end();
    let useless = [
        Buffer::writable(address, 11),
        Buffer::readable(address, 1536),
        Buffer::writable(end - 4, 1536),
    ];
    for buffer in useless {
        rig.receive.submit(&[buffer]).unwrap();
        assert_eq!(rig.receive.wait(TIMEOUT).unwrap().len, 0);
    }
    rig.check_alive();
}

/// Makes buffers of these lengths available in one step, and waits for the one that is of no use.
fn post_with_a_useless_one_between(rig: &mut Rig) -> [u16; 3] {
    let memory = rig.memory();
    let heads = [1536, 8, 1536].map(|len| {
        let address = memory.allocate(len as usize, 2).unwrap();
        rig.receive.add(&[Buffer::writable(address, len)]).unwrap()
    });
    rig.receive.publish().unwrap();
    assert_eq!(rig.receive.wait(TIMEOUT).unwrap(), Used { head: heads[1], len: 0 });
    heads
}

/// The ring was stopped and goes on: the first buffer came back unused, and the last one takes the
/// next packet.
fn check_that_none_is_lost(rig: &mut Rig, [first, _, last]: [u16; 3]) {
    assert!(!rig.receive.wait_broken(MOMENT).unwrap(), "nothing is wrong with the ring");
    assert_eq!(rig.receive.take_used().unwrap(), Some(Used { head: first, len: 0 }));
    let to_guest = frame(GUEST_MAC, HOST_MAC, &[7; 100]);
    rig.wire.send(&to_guest);
    let len = (NET_HEADER + to_guest.len()) as u32;
    assert_eq!(rig.receive.wait(TIMEOUT).unwrap(), Used { head: last, len });
    rig.check_alive();
}

#[test]
fn a_ring_with_a_useless_receive_buffer_between_others_stops_and_goes_on() {
    for (features, keeps_record) in
        [(USUAL, false), (USUAL, true), (USUAL & !MRG_RXBUF, false), (USUAL & !MRG_RXBUF, true)]
    {
        let Some(mut rig) = Rig::start(features) else { return };
        if keeps_record {
            let wanted = VhostUserInflight::new(0, 0, 3, 512);
            let (layout, file) = rig
                .device
                .exchange("GET_INFLIGHT_FD", |inner| inner.get_inflight_fd(&wanted))
                .unwrap();
            let fd = file.as_raw_fd();
            rig.device
                .exchange("SET_INFLIGHT_FD", |inner| inner.set_inflight_fd(&layout, fd))
                .unwrap();
        }
        let heads = post_with_a_useless_one_between(&mut rig);
        let base = rig.device.stop_queue(&rig.receive).unwrap();
        assert_eq!(base, 2, "the last one is available again");
        rig.device.attach(&rig.receive, base).unwrap();
        check_that_none_is_lost(&mut rig, heads);
        let heads = post_with_a_useless_one_between(&mut rig);
        // All rings stop and start for that.
        rig.device.set_memory().unwrap();
        check_that_none_is_lost(&mut rig, heads);
    }
}

#[test]
fn a_ring_whose_index_jumps_stops_alone() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    rig.receive.ring().set_avail_index(0x7000).unwrap();
    rig.receive.kick().unwrap();
    assert!(rig.receive.wait_broken(TIMEOUT).unwrap(), "the front-end is told");
    let to_host = frame(HOST_MAC, GUEST_MAC, &[7; 100]);
    rig.send(NetHeader::default(), &to_host);
    assert_eq!(rig.wire.receive(TIMEOUT), Some(to_host));
    rig.reattach(USUAL);
    rig.check_alive();
}

#[test]
fn an_interface_that_is_down_costs_packets_only() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    rig.post(8, 1536);
    rig.check_alive();
    network::ip("link set tap0 down");
    rig.send(NetHeader::default(), &frame(HOST_MAC, GUEST_MAC, &[7; 100]));
    let before = rig.process.cpu_nanoseconds().unwrap();
    std::thread::sleep(MOMENT);
    let spent = rig.process.cpu_nanoseconds().unwrap() - before;
    assert!(spent < 5_000_000, "{spent} ns of work while the interface is down");
    network::ip("link set tap0 up");
    rig.wire = network::Wiretap::open();
    rig.check_alive();
}

#[test]
fn an_interface_that_is_deleted_stops_the_rings_and_says_so() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    rig.post(8, 1536);
    rig.check_alive();
    network::ip("link delete tap0");
    assert!(rig.receive.wait_broken(TIMEOUT).unwrap(), "the front-end is told");
    let packet = rig.memory().put(&[0; 100]).unwrap();
    rig.transmit.submit(&[Buffer::readable(packet, 100)]).unwrap();
    assert!(rig.transmit.wait_broken(TIMEOUT).unwrap(), "the front-end is told");
    assert!(rig.process.running().unwrap());
    let (status, stderr) = rig.process.terminate().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(stderr.matches("TAP tap0 is gone").count(), 2, "once for each queue: {stderr}");
}
