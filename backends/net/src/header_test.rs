#![expect(clippy::arithmetic_side_effects, reason = "a test computes with small numbers")]

use proptest::prelude::*;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_UFO,
    VIRTIO_NET_F_HOST_USO,
};

use super::{HeaderFault, MAX_FRAME, TransmitHeader};
use crate::offload::{Features, bit_of, offered};

const ALL: fn() -> Features = || Features::new(offered(true));
const NONE: fn() -> Features = || Features::new(0);

/// flags, gso_type, then hdr_len, gso_size, csum_start, csum_offset, num_buffers.
fn header(flags: u8, gso_type: u8, words: [u16; 5]) -> [u8; 12] {
    let mut bytes = [flags, gso_type, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[2..].copy_from_slice(words.map(u16::to_le_bytes).as_flattened());
    bytes
}

#[test]
fn a_plain_frame_passes_as_it_is() {
    let plain = header(0, 0, [0; 5]);
    assert_eq!(TransmitHeader::parse(plain, 60, NONE()).unwrap().to_bytes(), plain);
}

#[test]
fn a_tcp_segment_to_be_split_passes_as_it_is() {
    let tso = header(1, 1, [54, 1448, 34, 16, 0]);
    assert_eq!(TransmitHeader::parse(tso, 40_000, ALL()).unwrap().to_bytes(), tso);
}

#[test]
fn fields_that_mean_nothing_are_cleared() {
    let noise = header(0xfe, 0, [9, 9, 9, 9, 9]);
    let passed = TransmitHeader::parse(noise, 60, ALL()).unwrap().to_bytes();
    assert_eq!(passed, [0; 12]);
}

#[test]
fn frames_that_cannot_be_are_refused() {
    for len in [0, 13, MAX_FRAME + 1, usize::MAX] {
        let fault = TransmitHeader::parse([0; 12], len, ALL()).unwrap_err();
        assert_eq!(fault, HeaderFault::FrameLength { len });
    }
}

#[test]
fn a_checksum_outside_the_frame_is_refused() {
    for (start, offset) in [(34, 25), (60, 0), (0xffff, 0xffff), (0, 0), (13, 0)] {
        let fault =
            TransmitHeader::parse(header(1, 0, [0, 0, start, offset, 0]), 60, ALL()).unwrap_err();
        assert_eq!(fault, HeaderFault::CsumOutOfFrame { start, offset, len: 60 });
    }
    assert!(TransmitHeader::parse(header(1, 0, [0, 0, 34, 24, 0]), 60, ALL()).is_ok());
}

#[test]
fn what_was_not_accepted_is_refused() {
    let csum = header(1, 0, [0, 0, 34, 16, 0]);
    assert_eq!(TransmitHeader::parse(csum, 60, NONE()), Err(HeaderFault::CsumNotAccepted));
    let only_csum = Features::new(1);
    for gso_type in [1, 3, 4, 5, 0x81, 0x84] {
        let fault =
            TransmitHeader::parse(header(1, gso_type, [54, 1448, 34, 16, 0]), 9000, only_csum);
        assert_eq!(fault, Err(HeaderFault::GsoNotAccepted { gso_type }));
    }
}

#[test]
fn each_kind_of_segmentation_takes_features_of_its_own() {
    let kinds: [(u8, &[u32]); 6] = [
        (1, &[VIRTIO_NET_F_HOST_TSO4]),
        (3, &[VIRTIO_NET_F_HOST_UFO]),
        (4, &[VIRTIO_NET_F_HOST_TSO6]),
        (5, &[VIRTIO_NET_F_HOST_USO]),
        (0x81, &[VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_ECN]),
        (0x84, &[VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_ECN]),
    ];
    for (gso_type, needed) in kinds {
        let segments = header(1, gso_type, [54, 1448, 34, 16, 0]);
        let enough = Features::new(needed.iter().fold(1, |bits, &bit| bits | bit_of(bit)));
        let passed = TransmitHeader::parse(segments, 9000, enough).unwrap();
        assert_eq!(passed.to_bytes(), segments);
        for &lacking in needed {
            let others = Features::new(offered(true) & !bit_of(lacking));
            let fault = TransmitHeader::parse(segments, 9000, others);
            assert_eq!(fault, Err(HeaderFault::GsoNotAccepted { gso_type }), "without {lacking}");
        }
    }
}

#[test]
fn segmentation_that_does_not_exist_is_refused() {
    for gso_type in [2, 6, 0x7f, 0x80, 0x83, 0x85, 0xff] {
        let fault = TransmitHeader::parse(header(1, gso_type, [54, 1448, 34, 16, 0]), 9000, ALL());
        assert_eq!(fault, Err(HeaderFault::GsoNotAccepted { gso_type }));
    }
}

#[test]
fn segmentation_needs_a_checksum_and_a_size() {
    let tso = |flags, size, hdr| header(flags, 1, [hdr, size, 34, 16, 0]);
    assert_eq!(
        TransmitHeader::parse(tso(0, 1448, 54), 9000, ALL()),
        Err(HeaderFault::GsoWithoutCsum)
    );
    let fault = TransmitHeader::parse(tso(1, 0, 54), 9000, ALL());
    assert_eq!(fault, Err(HeaderFault::GsoSize { size: 0, header: 54, len: 9000 }));
    let fault = TransmitHeader::parse(tso(1, 1448, 9001), 9000, ALL());
    assert_eq!(fault, Err(HeaderFault::GsoSize { size: 1448, header: 9001, len: 9000 }));
}

proptest! {
    #[test]
    fn no_header_panics_and_what_passes_stays_within_its_frame(
        bytes: [u8; 12], len in 0_usize..70_000, features: u64,
    ) {
        let Ok(passed) = TransmitHeader::parse(bytes, len, Features::new(features)) else {
            return Ok(());
        };
        let bytes = passed.to_bytes();
        let word = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        prop_assert!(bytes[0] & !1 == 0);
        prop_assert!(word(2) <= len);
        prop_assert!(bytes[0] == 0 || word(6) + word(8) + 2 <= len);
        prop_assert!(bytes[1] == 0 || (bytes[0] == 1 && word(4) > 0));
        prop_assert_eq!(word(10), 0);
    }
}
