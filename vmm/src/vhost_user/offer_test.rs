//! What a guest is offered.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test, as it should")]

use std::path::PathBuf;
use std::time::Duration;

use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ};
use virtio_bindings::virtio_config::{VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET};
use virtio_bindings::virtio_net::{VIRTIO_NET_F_CSUM, VIRTIO_NET_F_MAC};

use super::*;
use crate::vhost_user::{Policy, SocketPeer};

fn spec(name: &str) -> DeviceSpec {
    DeviceSpec {
        id: "dev0".into(),
        device_type: DeviceType::by_name(name).unwrap(),
        peer: Box::new(SocketPeer::new(PathBuf::new())),
        policy: Policy::default(),
        queues: None,
        queue_size: None,
        vcpus: 4,
        connect_timeout: Some(Duration::ZERO),
    }
}

fn with_queues(name: &str, queues: u16) -> DeviceSpec {
    DeviceSpec { queues: Some(queues), ..spec(name) }
}

fn found(bits: &[u32], queues: Option<u64>, config: Option<Vec<u8>>) -> Found {
    let features = bits.iter().fold(1 << VIRTIO_F_VERSION_1, |mask, bit| mask | 1 << bit);
    Found { features, queues, config }
}

/// Configuration space with a number somewhere.
fn config(len: usize, at: usize, number: &[u8]) -> Option<Vec<u8>> {
    let mut config = vec![0; len];
    config[at..at + number.len()].copy_from_slice(number);
    Some(config)
}

fn blk(queues: u64) -> Found {
    found(&[VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_FLUSH], Some(queues), config(36, 34, &[16, 0]))
}

fn offers(offer: &Offer, bit: u32) -> bool {
    offer.features & 1 << bit != 0
}

fn sentence(result: Result<Offer, VhostUserError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_disk_has_a_queue_for_each_vcpu_as_far_as_it_has_them() {
    for (back_end, queues) in [(16, 4), (2, 2)] {
        let offer = Offer::new(&spec("blk"), &blk(back_end)).unwrap();
        assert_eq!((offer.queues, offer.queue_size), (queues, 256));
        // The driver counts on what configuration space says.
        let shown = offer.present(blk(16).config.unwrap());
        assert_eq!(shown[34..36], queues.to_le_bytes());
    }
    let single = found(&[VIRTIO_BLK_F_FLUSH], None, config(36, 34, &[16, 0]));
    assert_eq!(Offer::new(&spec("blk"), &single).unwrap().queues, 1, "without MQ");
}

#[test]
fn asking_for_queues_is_heard_or_refused() {
    assert_eq!(Offer::new(&with_queues("blk", 3), &blk(16)).unwrap().queues, 3);
    let refused = sentence(Offer::new(&with_queues("blk", 9), &blk(8)));
    assert_eq!(refused, "9 queues were asked for, but the back-end has 8");
    let refused = sentence(Offer::new(&with_queues("blk", 0), &blk(8)));
    assert_eq!(refused, "0 queues were asked for, but there must be one");
    let refused = sentence(Offer::new(&with_queues("rng", 2), &found(&[], Some(1), None)));
    assert_eq!(refused, "2 queues were asked for, but a rng device has 1");
}

#[test]
fn queue_sizes_are_powers_of_two() {
    for size in [0, 1, 3, 1000, u16::MAX] {
        let spec = DeviceSpec { queue_size: Some(size), ..spec("blk") };
        assert!(matches!(Offer::new(&spec, &blk(1)), Err(VhostUserError::QueueSize(_))), "{size}");
    }
    let spec = DeviceSpec { queue_size: Some(1024), ..spec("blk") };
    assert_eq!(Offer::new(&spec, &blk(1)).unwrap().queue_size, 1024);
}

#[test]
fn features_that_need_the_transport_are_not_offered() {
    let packed = found(
        &[VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET, VIRTIO_BLK_F_FLUSH, 26, 30],
        Some(1),
        config(36, 34, &[1, 0]),
    );
    let offer = Offer::new(&spec("blk"), &packed).unwrap();
    assert_eq!(offer.features, 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_BLK_F_FLUSH);
}

#[test]
fn what_is_missing_is_named() {
    let legacy = Found { features: 0, ..blk(1) };
    let error = sentence(Offer::new(&spec("blk"), &legacy));
    assert!(error.contains("lacks VIRTIO_F_VERSION_1"), "{error}");
    let error = sentence(Offer::new(&spec("fs"), &found(&[], Some(2), None)));
    assert!(error.contains("lacks VHOST_USER_PROTOCOL_F_CONFIG"), "{error}");
}

#[test]
fn a_back_end_of_another_type_is_recognised() {
    let disk = found(&[VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH], Some(1), Some(vec![0; 12]));
    for name in ["rng", "net", "console", "vsock"] {
        let error = sentence(Offer::new(&spec(name), &disk));
        assert!(error.contains("as a blk device does"), "{name}: {error}");
    }
    let card = found(&[VIRTIO_NET_F_CSUM, VIRTIO_NET_F_MAC, 15], Some(2), Some(vec![0; 36]));
    let error = sentence(Offer::new(&spec("blk"), &card));
    assert!(error.contains("VIRTIO_NET_F_CSUM, as a net device does"), "{error}");
    let error = sentence(Offer::new(&spec("console"), &found(&[], Some(1), Some(vec![]))));
    assert!(error.contains("1 queues where such a device has at least 2"), "{error}");
    let none = found(&[VIRTIO_BLK_F_FLUSH], Some(0), config(36, 0, &[1]));
    let error = sentence(Offer::new(&spec("blk"), &none));
    assert!(error.contains("0 queues where such a device has at least 1"), "{error}");
}

#[test]
fn what_has_nothing_of_a_disk_is_none() {
    let console = found(&[], Some(2), Some(vec![0; 60]));
    let error = sentence(Offer::new(&spec("blk"), &console));
    assert!(error.contains("no feature of one and has no capacity"), "{error}");
    // A disk may be plain, or empty, but not both.
    Offer::new(&spec("blk"), &found(&[], Some(1), config(60, 0, &[8]))).unwrap();
    Offer::new(&spec("blk"), &found(&[VIRTIO_BLK_F_FLUSH], Some(1), Some(vec![0; 60]))).unwrap();
}

#[test]
fn a_feature_newer_than_we_are_is_only_left_out() {
    let newer = found(&[VIRTIO_BLK_F_BLK_SIZE, 18, 23], Some(1), config(36, 34, &[1, 0]));
    let offer = Offer::new(&spec("blk"), &newer).unwrap();
    assert_eq!(offer.features, 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_BLK_F_BLK_SIZE);
}

#[test]
fn a_network_card_has_its_pairs_and_then_the_control_queue() {
    let plain = found(&[VIRTIO_NET_F_CSUM], Some(2), Some(vec![]));
    assert_eq!(Offer::new(&spec("net"), &plain).unwrap().queues, 2);
    let control = found(&[VIRTIO_NET_F_CTRL_VQ], Some(3), Some(vec![]));
    assert_eq!(Offer::new(&spec("net"), &control).unwrap().queues, 3);
    let pairs = |limit| {
        found(&[VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ], Some(limit), config(10, 8, &[4, 0]))
    };
    for (limit, queues, shown) in [(9, 9, 4), (6, 5, 2), (255, 9, 4)] {
        let offer = Offer::new(&spec("net"), &pairs(limit)).unwrap();
        assert_eq!(offer.queues, queues, "of {limit}");
        assert_eq!(offer.present(vec![0; 10])[8], shown);
    }
}

#[test]
fn a_network_card_with_two_queues_offers_nothing_that_needs_a_third() {
    let rich = found(
        &[VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MAC, VIRTIO_NET_F_CTRL_RX],
        Some(2),
        config(10, 8, &[4, 0]),
    );
    let offer = Offer::new(&spec("net"), &rich).unwrap();
    assert_eq!(offer.queues, 2);
    assert_eq!(offer.features, 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_NET_F_MAC);
    // A back-end that counts pairs says 1.
    let offer = Offer::new(&spec("net"), &found(&[], Some(1), Some(vec![]))).unwrap();
    assert_eq!(offer.queues, 2);
}

#[test]
fn without_configuration_space_a_card_has_no_features_that_live_in_it() {
    let bare = found(&[VIRTIO_NET_F_MAC, VIRTIO_NET_F_CSUM], None, None);
    let offer = Offer::new(&spec("net"), &bare).unwrap();
    assert!(offers(&offer, VIRTIO_NET_F_CSUM) && !offers(&offer, VIRTIO_NET_F_MAC));
    assert_eq!(offer.config_len, 0);
}

#[test]
fn a_console_has_queues_for_the_ports_it_has() {
    let single = found(&[0], Some(2), Some(vec![0; 12]));
    assert_eq!(Offer::new(&spec("console"), &single).unwrap().queues, 2);
    let several = |limit| found(&[CONSOLE_F_MULTIPORT], limit, config(12, 4, &[4, 0, 0, 0]));
    for (limit, queues, ports) in [(None, 10, 4), (Some(10), 10, 4), (Some(7), 6, 2)] {
        let offer = Offer::new(&spec("console"), &several(limit)).unwrap();
        assert_eq!(offer.queues, queues);
        assert_eq!(offer.present(vec![0; 12])[4], ports);
    }
    let offer = Offer::new(&with_queues("console", 2), &several(None)).unwrap();
    assert!(offer.queues == 2 && !offers(&offer, CONSOLE_F_MULTIPORT));
    assert!(Offer::new(&with_queues("console", 1), &single).is_err());
}

#[test]
fn the_emergency_write_is_not_offered() {
    let emergency = found(&[CONSOLE_F_EMERG_WRITE], Some(2), Some(vec![0; 12]));
    let offer = Offer::new(&spec("console"), &emergency).unwrap();
    assert!(!offers(&offer, CONSOLE_F_EMERG_WRITE));
}

#[test]
fn a_file_system_has_a_priority_queue_and_request_queues() {
    let fs = |requests: u8| found(&[], Some(64), config(40, 36, &[requests, 0, 0, 0]));
    assert_eq!(Offer::new(&spec("fs"), &fs(1)).unwrap().queues, 2);
    let offer = Offer::new(&spec("fs"), &fs(8)).unwrap();
    assert_eq!(offer.queues, 5, "one for each vCPU");
    assert_eq!(offer.present(vec![0; 40])[36], 4);
    assert!(Offer::new(&spec("fs"), &fs(0)).is_err());
}

#[test]
fn insane_numbers_from_a_back_end_stay_numbers() {
    let insane = Some(vec![0xff; 40]);
    for name in DeviceType::names() {
        for queues in [None, Some(0), Some(1), Some(u64::MAX)] {
            for bits in [&[][..], &[0, 1, 12, 17, 22]] {
                let found = found(bits, queues, insane.clone());
                if let Ok(offer) = Offer::new(&spec(name), &found) {
                    assert!((1..=MAX_QUEUES).contains(&offer.queues), "{name}");
                    assert_eq!(offer.present(vec![0xff; 4]).len(), 40);
                }
            }
        }
    }
}

#[test]
fn a_back_end_that_returns_must_have_what_the_guest_was_told() {
    let offer = Offer::new(&spec("blk"), &blk(8)).unwrap();
    assert!(offer.check_return(&blk(8)).is_ok());
    let more = config(60, 34, &[99, 0]);
    let more = Found { features: u64::MAX, queues: Some(99), config: more };
    assert!(offer.check_return(&more).is_ok());
    for (lesser, named) in [
        (Found { features: 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_BLK_F_MQ, ..blk(8) }, "FLUSH"),
        (blk(2), "2 queues instead of 4"),
        (Found { config: None, ..blk(8) }, "0 bytes of configuration"),
        (Found { config: config(36, 34, &[3, 0]), ..blk(8) }, "has 3 queues instead of 4"),
    ] {
        let error = offer.check_return(&lesser).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn a_disk_of_one_queue_returns_whatever_its_number_of_queues_says() {
    let single = found(&[VIRTIO_BLK_F_FLUSH], Some(1), config(60, 0, &[8]));
    let offer = Offer::new(&spec("blk"), &single).unwrap();
    offer.check_return(&single).unwrap();
}
