//! The transport, driven by values alone.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test, as it should")]

use proptest::prelude::*;

use super::*;

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const OFFERED: u64 = VERSION_1 | 0b101;

fn transport() -> Transport {
    Transport::new(OFFERED, &[256, 128], 3, vec![1, 2, 3, 4, 5, 6, 7, 8])
}

fn read(transport: &Transport, offset: u64, len: usize) -> u64 {
    let mut data = [0; 8];
    transport.read_common(offset, &mut data[..len]);
    u64::from_le_bytes(data)
}

fn status(transport: &Transport) -> u8 {
    read(transport, field::DEVICE_STATUS, 1) as u8
}

fn set_status(transport: &mut Transport, value: u8) -> Option<Effect> {
    transport.write_common(field::DEVICE_STATUS, &[value])
}

fn write16(transport: &mut Transport, offset: u64, value: u16) -> Option<Effect> {
    transport.write_common(offset, &value.to_le_bytes())
}

fn write32(transport: &mut Transport, offset: u64, value: u32) -> Option<Effect> {
    transport.write_common(offset, &value.to_le_bytes())
}

fn accept(transport: &mut Transport, features: u64) {
    for select in 0..2 {
        write32(transport, field::DRIVER_FEATURE_SELECT, select);
        write32(transport, field::DRIVER_FEATURE, (features >> (32 * select)) as u32);
    }
}

fn negotiate(transport: &mut Transport) {
    assert_eq!(set_status(transport, ACKNOWLEDGE), None);
    assert_eq!(set_status(transport, ACKNOWLEDGE | DRIVER), None);
    accept(transport, VERSION_1 | 1);
    assert_eq!(set_status(transport, ACKNOWLEDGE | DRIVER | FEATURES_OK), None);
    assert_eq!(status(transport), ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

fn enable(transport: &mut Transport, queue: u16, desc: u64, avail: u64, used: u64) {
    write16(transport, field::QUEUE_SELECT, queue);
    write16(transport, field::QUEUE_SIZE, 64);
    for (offset, address) in
        [(field::QUEUE_DESC, desc), (field::QUEUE_DRIVER, avail), (field::QUEUE_DEVICE, used)]
    {
        write32(transport, offset, address as u32);
        write32(transport, offset + 4, (address >> 32) as u32);
    }
    write16(transport, field::QUEUE_ENABLE, 1);
}

fn running() -> Transport {
    let mut transport = transport();
    negotiate(&mut transport);
    enable(&mut transport, 1, 0x1_0000_1000, 0x2002, 0x3004);
    let effect = set_status(&mut transport, DRIVER_OK);
    assert!(matches!(effect, Some(Effect::Start(_))), "{effect:?}");
    transport
}

#[test]
fn driver_ok_starts_the_enabled_rings_with_the_accepted_features() {
    let mut transport = transport();
    negotiate(&mut transport);
    enable(&mut transport, 1, 0x1_0000_1000, 0x2002, 0x3004);
    let ring = Ring { index: 1, size: 64, desc: 0x1_0000_1000, avail: 0x2002, used: 0x3004 };
    let expected = Activation { features: VERSION_1 | 1, rings: vec![ring] };
    let written = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    assert_eq!(set_status(&mut transport, written), Some(Effect::Start(expected)));
    assert_eq!(status(&transport), written);
}

#[test]
fn driver_ok_twice_starts_once() {
    let mut transport = running();
    assert_eq!(set_status(&mut transport, DRIVER_OK), None);
    assert_eq!(set_status(&mut transport, 0xff), None);
    assert_eq!(status(&transport) & NEEDS_RESET, 0, "only the device sets NEEDS_RESET");
}

#[test]
fn driver_ok_before_features_ok_is_not_taken() {
    let mut transport = transport();
    assert_eq!(set_status(&mut transport, ACKNOWLEDGE | DRIVER | DRIVER_OK), None);
    assert_eq!(status(&transport), ACKNOWLEDGE | DRIVER);
}

#[test]
fn features_ok_is_refused_for_what_was_not_offered_and_without_version_1() {
    for features in [0, 1, VERSION_1 | 0b10, u64::MAX] {
        let mut transport = transport();
        set_status(&mut transport, ACKNOWLEDGE | DRIVER);
        accept(&mut transport, features);
        set_status(&mut transport, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(status(&transport), ACKNOWLEDGE | DRIVER, "{features:#x}");
        // The driver may try again with less.
        negotiate(&mut transport);
    }
}

#[test]
fn features_are_settled_once_features_ok_stands() {
    let mut transport = transport();
    negotiate(&mut transport);
    accept(&mut transport, u64::MAX);
    assert_eq!(transport.accepted, VERSION_1 | 1);
}

#[test]
fn feature_windows_beyond_64_bits_read_zero_and_take_nothing() {
    let mut transport = transport();
    for (select, expected) in [(0, OFFERED as u32), (1, (OFFERED >> 32) as u32), (2, 0), (!0, 0)] {
        write32(&mut transport, field::DEVICE_FEATURE_SELECT, select);
        assert_eq!(read(&transport, 4, 4), u64::from(expected));
    }
    write32(&mut transport, field::DRIVER_FEATURE_SELECT, 7);
    write32(&mut transport, field::DRIVER_FEATURE, !0);
    assert_eq!(transport.accepted, 0);
}

#[test]
fn reset_of_a_running_device_reads_back_nonzero_until_it_is_done() {
    let mut transport = running();
    let before = status(&transport);
    assert_eq!(set_status(&mut transport, 0), Some(Effect::Reset { stop: true }));
    assert_eq!(status(&transport), before);
    // Meanwhile nothing is taken, and there is no second reset.
    assert_eq!(set_status(&mut transport, 0), None);
    assert_eq!(set_status(&mut transport, 0xff), None);
    assert_eq!(write16(&mut transport, field::CONFIG_MSIX_VECTOR, 0), None);
    assert_eq!(transport.write_config(0, &[9]), None);
    transport.reset_done();
    assert_eq!(status(&transport), 0);
    write16(&mut transport, field::QUEUE_SELECT, 1);
    assert_eq!(read(&transport, field::QUEUE_ENABLE, 2), 0);
    assert_eq!(read(&transport, field::QUEUE_SIZE, 2), 128);
    assert_eq!(read(&transport, field::QUEUE_DESC, 8), 0);
    assert_eq!(transport.accepted, 0);
    // And all over again.
    negotiate(&mut transport);
}

#[test]
fn reset_of_an_idle_device_is_done_at_once() {
    let mut transport = transport();
    negotiate(&mut transport);
    assert_eq!(set_status(&mut transport, 0), Some(Effect::Reset { stop: false }));
    assert_eq!(status(&transport), 0);
    // A device that reports a reset nobody asked for changes nothing.
    negotiate(&mut transport);
    transport.reset_done();
    assert_ne!(status(&transport), 0);
}

#[test]
fn misaligned_rings_are_never_started() {
    for (desc, avail, used) in
        [(0x1008, 0x2000, 0x3000), (0x1000, 0x2001, 0x3000), (0x1000, 0x2000, 0x3002)]
    {
        let mut transport = transport();
        negotiate(&mut transport);
        enable(&mut transport, 0, desc, avail, used);
        assert_eq!(set_status(&mut transport, DRIVER_OK), Some(Effect::NeedsReset));
        assert_eq!(status(&transport) & NEEDS_RESET, NEEDS_RESET);
        assert_eq!(transport.read_isr(), ISR_CONFIG);
        assert_eq!(set_status(&mut transport, 0), Some(Effect::Reset { stop: false }));
        assert_eq!(status(&transport), 0);
    }
}

#[test]
fn a_queue_enabled_without_a_ring_has_the_ring_at_zero() {
    let mut transport = transport();
    negotiate(&mut transport);
    write16(&mut transport, field::QUEUE_SELECT, 0);
    write16(&mut transport, field::QUEUE_ENABLE, 1);
    let ring = Ring { index: 0, size: 256, desc: 0, avail: 0, used: 0 };
    let expected = Activation { features: VERSION_1 | 1, rings: vec![ring] };
    assert_eq!(set_status(&mut transport, DRIVER_OK), Some(Effect::Start(expected)));
}

#[test]
fn a_device_may_be_started_without_any_queue() {
    let mut transport = transport();
    negotiate(&mut transport);
    let expected = Activation { features: VERSION_1 | 1, rings: vec![] };
    assert_eq!(set_status(&mut transport, DRIVER_OK), Some(Effect::Start(expected)));
}

#[test]
fn queue_sizes_are_powers_of_two_up_to_the_devices() {
    let mut transport = transport();
    write16(&mut transport, field::QUEUE_SELECT, 1);
    for size in [0, 3, 129, 256, u16::MAX] {
        write16(&mut transport, field::QUEUE_SIZE, size);
        assert_eq!(read(&transport, field::QUEUE_SIZE, 2), 128, "{size}");
    }
    write16(&mut transport, field::QUEUE_SIZE, 2);
    assert_eq!(read(&transport, field::QUEUE_SIZE, 2), 2);
}

#[test]
fn an_enabled_queue_keeps_its_ring_and_stays_enabled() {
    let mut transport = transport();
    enable(&mut transport, 0, 0x1000, 0x2000, 0x3000);
    write16(&mut transport, field::QUEUE_SIZE, 2);
    write16(&mut transport, field::QUEUE_ENABLE, 0);
    write32(&mut transport, field::QUEUE_DESC, 0x9000);
    assert_eq!(read(&transport, field::QUEUE_SIZE, 2), 64);
    assert_eq!(read(&transport, field::QUEUE_ENABLE, 2), 1);
    assert_eq!(read(&transport, field::QUEUE_DESC, 8), 0x1000);
}

#[test]
fn queues_that_do_not_exist_have_no_size_and_take_nothing() {
    let mut transport = transport();
    for select in [2, 0x7fff, u16::MAX] {
        write16(&mut transport, field::QUEUE_SELECT, select);
        assert_eq!(read(&transport, field::QUEUE_SELECT, 2), u64::from(select));
        assert_eq!(read(&transport, field::QUEUE_SIZE, 2), 0);
        assert_eq!(write16(&mut transport, field::QUEUE_MSIX_VECTOR, 0), None);
        assert_eq!(read(&transport, field::QUEUE_MSIX_VECTOR, 2), u64::from(NO_VECTOR));
        assert_eq!(write16(&mut transport, field::QUEUE_ENABLE, 1), None);
        assert_eq!(read(&transport, field::QUEUE_ENABLE, 2), 0);
    }
}

#[test]
fn vectors_are_routed_and_those_that_do_not_exist_read_back_as_none() {
    let mut transport = transport();
    let routed = write16(&mut transport, field::CONFIG_MSIX_VECTOR, 2);
    assert_eq!(routed, Some(Effect::Route(Source::Config, Some(2))));
    write16(&mut transport, field::QUEUE_SELECT, 1);
    let routed = write16(&mut transport, field::QUEUE_MSIX_VECTOR, 0);
    assert_eq!(routed, Some(Effect::Route(Source::Queue(1), Some(0))));
    assert_eq!(read(&transport, field::QUEUE_MSIX_VECTOR, 2), 0);
    for vector in [3, NO_VECTOR] {
        let routed = write16(&mut transport, field::QUEUE_MSIX_VECTOR, vector);
        assert_eq!(routed, Some(Effect::Route(Source::Queue(1), None)));
        assert_eq!(read(&transport, field::QUEUE_MSIX_VECTOR, 2), u64::from(NO_VECTOR));
    }
}

#[test]
fn whole_64_bit_writes_of_ring_addresses_count() {
    let mut transport = transport();
    transport.write_common(field::QUEUE_DESC, &0x1234_5678_9abc_def0_u64.to_le_bytes());
    assert_eq!(read(&transport, field::QUEUE_DESC, 8), 0x1234_5678_9abc_def0);
    transport.write_common(field::QUEUE_DESC_HIGH, &[0; 8]);
    assert_eq!(read(&transport, field::QUEUE_DESC, 8), 0x1234_5678_9abc_def0);
}

#[test]
fn narrow_reads_see_the_bytes_of_a_register() {
    let mut transport = transport();
    write32(&mut transport, field::QUEUE_DESC, 0x4433_2210);
    assert_eq!(read(&transport, field::QUEUE_DESC + 1, 1), 0x22);
    assert_eq!(read(&transport, field::QUEUE_DESC + 2, 2), 0x4433);
    assert_eq!(read(&transport, 18, 2), 2, "num_queues");
    assert_eq!(read(&transport, COMMON_CONFIG_SIZE as u64, 8), 0);
    assert_eq!(read(&transport, u64::MAX, 4), 0);
}

#[test]
fn a_configuration_change_bumps_the_generation_and_reaches_a_running_driver() {
    let mut transport = running();
    let generation = read(&transport, 21, 1);
    assert!(transport.config_changed(vec![9; 8], true));
    assert_eq!(read(&transport, 21, 1), generation + 1);
    assert_eq!(transport.read_isr(), ISR_CONFIG);
    assert_eq!(transport.read_isr(), 0, "reading clears it");
    let mut data = [0; 4];
    transport.read_config(6, &mut data);
    assert_eq!(data, [9, 9, 0, 0]);
    // The same contents again are no new generation.
    assert!(!transport.config_changed(vec![9; 8], false));
    assert_eq!(read(&transport, 21, 1), generation + 1);
}

#[test]
fn a_driver_that_does_not_run_is_told_nothing() {
    let mut transport = transport();
    negotiate(&mut transport);
    assert!(!transport.config_changed(vec![9; 8], true));
    assert!(!transport.needs_reset());
    assert_eq!(status(&transport) & NEEDS_RESET, NEEDS_RESET);
    assert_eq!(transport.read_isr(), 0);
}

#[test]
fn a_failed_device_resets_as_any_other() {
    let mut transport = running();
    assert!(transport.needs_reset());
    assert_eq!(set_status(&mut transport, 0), Some(Effect::Reset { stop: true }));
    transport.reset_done();
    assert_eq!(status(&transport), 0);
}

#[test]
fn configuration_writes_are_taken_whole_or_not_at_all() {
    let mut transport = transport();
    assert_eq!(transport.write_config(0, &[7]), None, "before there is a driver");
    set_status(&mut transport, ACKNOWLEDGE | DRIVER);
    let taken = transport.write_config(6, &[7, 8]);
    assert_eq!(taken, Some(Effect::WriteConfig { offset: 6, data: vec![7, 8] }));
    for offset in [7, 8, u64::MAX] {
        assert_eq!(transport.write_config(offset, &[1, 2]), None);
    }
    let mut data = [0; 8];
    transport.read_config(0, &mut data);
    assert_eq!(data, [1, 2, 3, 4, 5, 6, 7, 8]);
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_breaks_it(accesses in proptest::collection::vec(
        (0_u64..80, proptest::collection::vec(any::<u8>(), 0..9), any::<u8>()), 0..200)
    ) {
        let mut transport = transport();
        let mut started = false;
        for (offset, data, what) in accesses {
            let effect = match what % 6 {
                0 => transport.write_config(offset, &data),
                1 => { transport.reset_done(); if status(&transport) == 0 { started = false; } None }
                2 => { transport.needs_reset(); None }
                _ => transport.write_common(offset, &data),
            };
            match effect {
                Some(Effect::Start(activation)) => {
                    prop_assert!(!started, "started twice without a reset");
                    prop_assert_eq!(activation.features & !OFFERED, 0);
                    prop_assert!(activation.rings.iter().all(|r| r.index < 2 && r.size.is_power_of_two()));
                    started = true;
                }
                Some(Effect::Reset { stop }) => prop_assert_eq!(stop, started),
                Some(Effect::Route(_, Some(vector))) => prop_assert!(vector < 3),
                _ => {}
            }
            let mut back = vec![0; data.len()];
            transport.read_common(offset, &mut back);
        }
    }
}
