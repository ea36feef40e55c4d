//! What gets no further is counted by its reason.

use std::os::unix::net::UnixDatagram;

use atoll_driver::{Buffer, NET_HEADER, NetHeader, TIMEOUT, VERSION_1};

use crate::line::{CTRL_RX, CTRL_VQ, Line, OK};
use crate::network::{self, GUEST_MAC, HOST_MAC, frame};
use crate::rig::{MRG_RXBUF, USUAL};
use crate::turning::{Card, to_guest, to_host};

const HOST_USO: u64 = 1 << 56;

#[test]
fn what_is_dropped_is_counted_by_its_reason() {
    let Some(mut card) = Card::start(USUAL & !MRG_RXBUF, &[]) else { return };
    // Too short for a header.
    let address = card.rig.memory().put(&[0; NET_HEADER]).unwrap();
    card.rig.transmit.submit(&[Buffer::readable(address, 5)]).unwrap();
    card.rig.transmit.wait(TIMEOUT).unwrap();
    assert_eq!(card.dropped("tx", "malformed"), 1);
    // More than the one buffer has room for.
    card.rig.post(1, 80);
    card.rig.wire.send(&frame(GUEST_MAC, HOST_MAC, &[7; 1000]));
    card.wait_until(|card| card.dropped("rx", "no-room") > 0);
    // The interface that is down takes nothing.
    network::ip("link set tap0 down");
    card.rig.send(NetHeader::default(), &to_host(1));
    assert_eq!(card.dropped("tx", "host-down"), 1);
}

#[test]
fn what_nobody_wants_or_takes_is_counted_apart() {
    let features = USUAL | CTRL_VQ | CTRL_RX | HOST_USO;
    let Some(mut card) = Card::start(features, &["--mac=02:00:00:00:00:02"]) else { return };
    card.rig.post(64, 1536);
    let mut line = Line::open(&mut card.rig.device, 2);
    assert_eq!(line.ask(&[0, 0, 0]), OK, "not promiscuous");
    card.rig.wire.send(&frame(HOST_MAC, GUEST_MAC, &[1; 60]));
    card.wait_until(|card| card.dropped("rx", "unwanted") == 1);
    // Datagrams whose checksum is not where theirs is: possible, but not for the kernel.
    let (flags, gso_type, gso_size) = (1, 5, 100);
    let to_kernel = NetHeader {
        flags,
        gso_type,
        hdr_len: 42,
        gso_size,
        csum_start: 34,
        csum_offset: 8,
        num_buffers: 0,
    };
    card.rig.send(to_kernel, &network::ipv4(false, 17, &[1; 900]));
    assert_eq!(card.dropped("tx", "refused"), 1);
    assert_eq!((card.dropped("rx", "no-room"), card.dropped("tx", "malformed")), (0, 0));
}

#[test]
fn a_network_that_is_not_there_and_a_datagram_that_is_no_frame_are_counted_apart() {
    if network::enter().is_none() {
        return;
    }
    let features = VERSION_1 | MRG_RXBUF;
    let mut card = Card::serve(features, |dir| {
        [
            "--dgram".into(),
            dir.join("card").display().to_string(),
            dir.join("peer").display().to_string(),
        ]
        .join("\n")
    });
    card.rig.send(NetHeader::default(), &to_host(1));
    assert_eq!(card.dropped("tx", "no-network"), 1);
    card.rig.post(64, 65_536);
    let peer = UnixDatagram::unbound().unwrap();
    peer.send_to(&[7; 66_000], card.dir.path().join("card")).unwrap();
    peer.send_to(&to_guest(1), card.dir.path().join("card")).unwrap();
    assert_eq!(card.rig.next_packet().1, to_guest(1), "the one before is longer than any frame");
    assert_eq!(card.dropped("rx", "length"), 1);
}
