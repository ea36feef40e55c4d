//! Names of features.

use super::*;

fn named(device: &str, bit: u32) -> String {
    name(DeviceType::by_name(device).unwrap(), bit)
}

#[test]
fn a_bit_has_the_name_that_its_type_gives_it() {
    assert_eq!(named("blk", 9), "VIRTIO_BLK_F_FLUSH");
    assert_eq!(named("net", 9), "VIRTIO_NET_F_GUEST_ECN");
    assert_eq!(named("rng", 9), "feature bit 9");
    assert_eq!(named("rng", 32), "VIRTIO_F_VERSION_1");
    assert_eq!(named("vsock", 29), "VIRTIO_RING_F_EVENT_IDX");
}

#[test]
fn several_are_listed() {
    let blk = DeviceType::by_name("blk").unwrap();
    assert_eq!(names(blk, 1 << 5 | 1 << 32), "VIRTIO_BLK_F_RO, VIRTIO_F_VERSION_1");
    assert_eq!(names(blk, 0), "");
}
