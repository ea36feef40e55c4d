//! Packets that both sides agree on.

use std::net::UdpSocket;

use atoll_driver::{Buffer, NetHeader, TIMEOUT, VERSION_1};

use crate::network::{self, GUEST_MAC, HOST_MAC, Wiretap, checksum, frame, ipv4, pseudo_sum};
use crate::rig::{CSUM, GUEST_CSUM, GUEST_TSO4, MOMENT, MRG_RXBUF, Rig, USUAL};

/// Bytes that differ by place, so that none can be lost or swapped unseen.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// A TCP segment of the host for the guest, with its checksum left to fill in.
pub(crate) fn tcp_segment(payload: &[u8]) -> Vec<u8> {
    let mut tcp = [0x30, 0x39, 0x10, 0x92, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff].to_vec();
    tcp.extend_from_slice(&pseudo_sum(6, 20 + payload.len()).to_be_bytes());
    tcp.extend_from_slice(&[0, 0]);
    tcp.extend_from_slice(payload);
    ipv4(true, 6, &tcp)
}

/// The packet socket's header for [`tcp_segment`]: to be split into segments of 1448 bytes.
pub(crate) fn segmented() -> [u8; Wiretap::HEADER] {
    let header = NetHeader {
        flags: 1,
        gso_type: 1,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };
    header.to_bytes()[..Wiretap::HEADER].try_into().unwrap()
}

#[test]
fn frames_pass_both_ways_and_in_order() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    rig.post(128, 1536);
    for len in [46, 60, 1000, 1500] {
        let to_guest = frame(GUEST_MAC, HOST_MAC, &pattern(len));
        rig.wire.send(&to_guest);
        let (header, got) = rig.next_packet();
        assert_eq!((header.num_buffers, got), (1, to_guest));

        let to_host = frame(HOST_MAC, GUEST_MAC, &pattern(len));
        rig.send(NetHeader::default(), &to_host);
        assert_eq!(rig.wire.receive(TIMEOUT), Some(to_host));
    }
    for number in 0..100_u8 {
        rig.wire.send(&frame(GUEST_MAC, HOST_MAC, &[number; 64]));
    }
    for number in 0..100_u8 {
        assert_eq!(rig.next_packet().1[14..], [number; 64]);
    }
}

#[test]
fn a_packet_may_be_scattered_over_many_small_buffers() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    let memory = rig.memory();
    // As a chain, and as an indirect table with more pieces than one system call takes: a packet that
    // is copied on its way, and one that is not.
    for (len, large, small) in [(1400, 7, 5), (9000, 100, 25)] {
        let to_host = frame(HOST_MAC, GUEST_MAC, &pattern(len));
        let packet = [NetHeader::default().to_bytes().as_slice(), &to_host].concat();
        let pieces = |size: usize| -> Vec<Buffer> {
            let put =
                |piece: &[u8]| Buffer::readable(memory.put(piece).unwrap(), piece.len() as u32);
            packet.chunks(size).map(put).collect()
        };
        rig.transmit.add(&pieces(large)).unwrap();
        rig.transmit.add_indirect(&pieces(small)).unwrap();
        rig.transmit.publish().unwrap();
        for _ in 0..2 {
            assert_eq!(rig.wire.receive(TIMEOUT).as_deref(), Some(to_host.as_slice()));
            rig.transmit.wait(TIMEOUT).unwrap();
        }
    }
}

#[test]
fn a_large_packet_fills_several_buffers_at_once() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    // The second size is more pieces than one system call takes: the rest of it is copied.
    for buffer in [1536, 256] {
        // The first is copied; those behind it are expected, and go straight to where they belong.
        for _ in 0..3 {
            rig.post(if buffer == 256 { 200 } else { 40 }, buffer);
            let segment = tcp_segment(&pattern(50_000));
            rig.wire.send_with(segmented(), &segment);
            let (header, got) = rig.next_packet();
            let buffers = (segment.len() + 12).div_ceil(buffer as usize);
            assert_eq!(usize::from(header.num_buffers), buffers);
            assert_eq!((header.flags & 1, header.gso_type, header.gso_size), (1, 1, 1448));
            assert_eq!((header.csum_start, header.csum_offset), (34, 16));
            assert!(got == segment, "the bytes differ");
            let small = frame(GUEST_MAC, HOST_MAC, &pattern(64));
            rig.wire.send(&small);
            assert_eq!(rig.next_packet().1, small);
        }
        rig.reattach(USUAL);
    }
}

#[test]
fn a_driver_without_offloads_gets_finished_packets() {
    let Some(mut rig) = Rig::start(VERSION_1) else { return };
    rig.post(64, 1536);
    rig.wire.send_with(segmented(), &tcp_segment(&pattern(4 * 1448)));
    let mut payload = Vec::new();
    for _ in 0..4 {
        let (header, got) = rig.next_packet();
        assert_eq!((header.flags, header.gso_type, header.num_buffers), (0, 0, 1));
        let (ip, tcp) = got[14..].split_at(20);
        let pseudo = [&ip[12..20], &[0, 6], &(tcp.len() as u16).to_be_bytes()].concat();
        assert_eq!(checksum(&[&pseudo, tcp].concat()), 0, "its checksum is filled in");
        payload.extend_from_slice(&tcp[20..]);
    }
    assert!(payload == pattern(4 * 1448), "the bytes differ");
}

#[test]
fn segmentation_without_mergeable_buffers_needs_one_large_buffer() {
    let features = VERSION_1 | GUEST_CSUM | GUEST_TSO4;
    let Some(mut rig) = Rig::start(features) else { return };
    rig.post(1, 1536);
    rig.post(2, 65_562);
    let segment = tcp_segment(&pattern(50_000));
    // Too large for the first buffer, which stays for what fits.
    rig.wire.send_with(segmented(), &segment);
    let small = frame(GUEST_MAC, HOST_MAC, &pattern(64));
    rig.wire.send(&small);
    assert_eq!(rig.next_packet().1, small);
    rig.wire.send_with(segmented(), &segment);
    let (header, got) = rig.next_packet();
    assert_eq!((header.num_buffers, got.len()), (1, segment.len()));
}

#[test]
fn a_checksum_left_by_the_guest_is_filled_in() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    let host = UdpSocket::bind("192.0.2.1:4242").unwrap();
    host.set_read_timeout(Some(TIMEOUT)).unwrap();
    let payload = pattern(333);
    let len = (8 + payload.len()) as u16;
    let mut udp = [0x30, 0x39, 0x10, 0x92, 0, 0, 0, 0].to_vec();
    udp[4..6].copy_from_slice(&len.to_be_bytes());
    udp[6..8].copy_from_slice(&pseudo_sum(17, len.into()).to_be_bytes());
    udp.extend_from_slice(&payload);
    let header = NetHeader { flags: 1, csum_start: 34, csum_offset: 6, ..NetHeader::default() };
    rig.send(header, &ipv4(false, 17, &udp));
    let mut got = [0; 2048];
    let (len, from) = host.recv_from(&mut got).unwrap();
    assert_eq!(from.to_string(), "192.0.2.2:12345");
    assert_eq!(got[..len], payload);
}

#[test]
fn packets_wait_until_the_driver_has_buffers() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    let waiting: Vec<_> = (0..20).map(|n| frame(GUEST_MAC, HOST_MAC, &[n; 100])).collect();
    let before = rig.process.cpu_nanoseconds().unwrap();
    for packet in &waiting {
        rig.wire.send(packet);
    }
    std::thread::sleep(MOMENT);
    let spent = rig.process.cpu_nanoseconds().unwrap() - before;
    assert!(spent < 5_000_000, "{spent} ns of work though there is nothing to do");
    rig.post(5, 1536);
    for packet in &waiting[..5] {
        assert_eq!(rig.next_packet().1, *packet);
    }
    rig.post(15, 1536);
    for packet in &waiting[5..] {
        assert_eq!(rig.next_packet().1, *packet);
    }
}

#[test]
fn a_packet_larger_than_all_buffers_is_dropped_and_the_next_one_passes() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    rig.post(4, 1536);
    rig.wire.send_with(segmented(), &tcp_segment(&pattern(50_000)));
    std::thread::sleep(MOMENT);
    let small = frame(GUEST_MAC, HOST_MAC, &pattern(64));
    rig.wire.send(&small);
    assert_eq!(rig.next_packet().1, small);
}

#[test]
fn jumbo_frames_pass_without_segmentation_offload() {
    let features = VERSION_1 | MRG_RXBUF | CSUM;
    let Some(mut rig) = Rig::start(features) else { return };
    network::ip("link set tap0 mtu 9000");
    rig.post(64, 1536);
    let jumbo = frame(GUEST_MAC, HOST_MAC, &pattern(8986));
    for _ in 0..3 {
        rig.wire.send(&jumbo);
        let (header, got) = rig.next_packet();
        assert_eq!((header.num_buffers, got.len()), (6, jumbo.len()));
        assert!(got == jumbo, "the bytes differ");
    }
}
