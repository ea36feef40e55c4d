//! The table of types.

use super::*;

#[test]
fn names_are_found_and_ids_are_those_of_the_specification() {
    let ids = [
        ("blk", 2),
        ("net", 1),
        ("console", 3),
        ("rng", 4),
        ("fs", 26),
        ("vsock", 19),
        ("scsi", 8),
        ("sound", 25),
        ("gpio", 41),
        ("i2c", 34),
    ];
    for (name, id) in ids {
        assert_eq!(DeviceType::by_name(name).unwrap().id(), id, "{name}");
    }
    assert_eq!(DeviceType::by_name("block"), None);
    assert_eq!(DeviceType::names().count(), ids.len());
}

#[test]
fn configuration_space_is_as_long_as_the_features_make_it() {
    let len = |name: &str, bits: &[u32]| {
        let features = bits.iter().fold(0, |mask, bit| mask | 1 << bit);
        DeviceType::by_name(name).unwrap().config_len(features)
    };
    assert_eq!(len("blk", &[]), 36);
    assert_eq!(len("blk", &[VIRTIO_BLK_F_DISCARD]), 60);
    assert_eq!(len("blk", &[VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_SECURE_ERASE]), 72);
    assert_eq!(len("net", &[]), 0);
    assert_eq!(len("net", &[VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU]), 12);
    assert_eq!(len("console", &[CONSOLE_F_SIZE]), 12);
    assert_eq!(len("rng", &[]), 0);
    assert_eq!(len("fs", &[]), 40);
}
