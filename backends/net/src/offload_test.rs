use proptest::prelude::*;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
};

use super::{CSUM, ECN, Features, TSO4, TSO6, UFO, USO, bit_of, offered};

fn accepted(bits: &[u32]) -> Features {
    Features::new(bits.iter().fold(0, |all, &bit| all | bit_of(bit)))
}

#[test]
fn a_driver_that_accepts_nothing_gets_finished_packets() {
    assert_eq!(accepted(&[]).tap_offload(), 0);
}

#[test]
fn a_driver_that_accepts_everything_gets_everything() {
    let all = CSUM | TSO4 | TSO6 | ECN | UFO | USO;
    assert_eq!(Features::new(offered(true)).tap_offload(), all);
}

#[test]
fn segmentation_without_checksum_offload_is_no_offload() {
    assert_eq!(accepted(&[VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6]).tap_offload(), 0);
}

#[test]
fn congestion_marks_need_tcp_segmentation() {
    let csum = VIRTIO_NET_F_GUEST_CSUM;
    assert_eq!(accepted(&[csum, VIRTIO_NET_F_GUEST_ECN]).tap_offload(), CSUM);
    let with_tcp = accepted(&[csum, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO6]);
    assert_eq!(with_tcp.tap_offload(), CSUM | TSO6 | ECN);
}

#[test]
fn udp_segmentation_is_for_both_families_or_for_none() {
    let csum = VIRTIO_NET_F_GUEST_CSUM;
    assert_eq!(accepted(&[csum, VIRTIO_NET_F_GUEST_USO4]).tap_offload(), CSUM);
    let both = accepted(&[csum, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6]);
    assert_eq!(both.tap_offload(), CSUM | USO);
}

#[test]
fn udp_segmentation_is_offered_only_where_the_kernel_has_it() {
    assert_eq!(offered(true) & !offered(false), 0b111 << 54);
}

proptest! {
    #[test]
    fn the_kernel_takes_what_any_choice_leads_to(bits: u64) {
        let flags = Features::new(bits).tap_offload();
        prop_assert!(flags == 0 || flags & CSUM != 0);
        prop_assert!(flags & ECN == 0 || flags & (TSO4 | TSO6) != 0);
        prop_assert!(flags & USO == 0 || flags & USO == USO);
    }
}
