//! Packets that come faster than one by one: the device moves several of them together.

use atoll_driver::{Buffer, NetHeader, TIMEOUT, VERSION_1};

use crate::frames::{pattern, segmented, tcp_segment};
use crate::network::{GUEST_MAC, HOST_MAC, frame};
use crate::rig::{Rig, USUAL};

/// The payload of the packet with that number: small ones and full ones.
fn payload(number: usize) -> Vec<u8> {
    let mut payload = pattern(46 + number * 97 % 1455);
    payload[0] = number as u8;
    payload
}

#[test]
fn packets_that_waited_for_buffers_arrive_whole_and_in_order() {
    // One buffer a packet, then several, and one where no more than one may be filled.
    for (features, buffer) in [(USUAL, 1536), (USUAL, 256), (VERSION_1, 2048)] {
        let Some(mut rig) = Rig::start(features) else { return };
        let mut waiting: Vec<_> =
            (0..100).map(|number| frame(GUEST_MAC, HOST_MAC, &payload(number))).collect();
        waiting.iter().for_each(|packet| rig.wire.send(packet));
        if features == USUAL {
            // It is read with the others, and is no small one.
            let large = tcp_segment(&pattern(20_000));
            rig.wire.send_with(segmented(), &large);
            waiting.push(large);
        }
        let after = frame(GUEST_MAC, HOST_MAC, &pattern(300));
        rig.wire.send(&after);
        waiting.push(after);
        for (number, packet) in waiting.iter().enumerate() {
            rig.post(rig.receive.free(), buffer);
            let (header, got) = rig.next_packet();
            let buffers = (packet.len() + 12).div_ceil(buffer as usize);
            assert_eq!(usize::from(header.num_buffers), buffers, "packet {number}");
            assert!(got == *packet, "the bytes of packet {number} differ");
        }
    }
}

#[test]
fn packets_sent_together_leave_in_order_and_without_the_malformed() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    let memory = rig.memory();
    let mut leaving = Vec::new();
    let count = 70;
    for number in 0..count {
        let good = number % 9 != 4;
        let large = number == 40;
        let payload = if large { pattern(9000) } else { payload(number) };
        let to_host = frame(HOST_MAC, GUEST_MAC, &payload);
        let header = NetHeader { gso_type: if good { 0 } else { 0x7f }, ..NetHeader::default() };
        let packet = [header.to_bytes().as_slice(), &to_host].concat();
        let address = memory.put(&packet).unwrap();
        // Its header apart, as some drivers have it.
        let (start, len) = (Buffer::readable(address, 12), packet.len() as u32 - 12);
        rig.transmit.add(&[start, Buffer::readable(address + 12, len)]).unwrap();
        if good {
            leaving.push(to_host);
        }
    }
    rig.transmit.publish().unwrap();
    for (number, packet) in leaving.iter().enumerate() {
        let sent = rig.wire.receive(TIMEOUT);
        assert!(sent.as_deref() == Some(packet.as_slice()), "packet {number} is another");
    }
    for _ in 0..count {
        assert_eq!(rig.transmit.wait(TIMEOUT).unwrap().len, 0);
    }
}
