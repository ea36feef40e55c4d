use proptest::prelude::*;
use virtio_bindings::virtio_net::VIRTIO_NET_F_CTRL_VLAN;

use super::Filter;
use crate::Mac;
use crate::command::{Addresses, Mode};
use crate::offload::{Features, bit_of};

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
const GROUP: [u8; 6] = [0x01, 0, 0x5e, 0, 0, 1];
const EVERYBODY: [u8; 6] = [0xff; 6];

fn own() -> Option<Mac> {
    Mac::from_octets(OWN).ok()
}

fn filter() -> Filter {
    let mut filter = Filter::new(Features::new(bit_of(VIRTIO_NET_F_CTRL_VLAN)), own());
    filter.set_mode(Mode::Promiscuous, false);
    filter
}

fn to(destination: [u8; 6]) -> Vec<u8> {
    [destination.as_slice(), &[2; 6], &[8, 0, 0, 0, 0, 0]].concat()
}

fn tagged(destination: [u8; 6], id: u16) -> Vec<u8> {
    [destination.as_slice(), &[2; 6], &[0x81, 0], &id.to_be_bytes(), &[8, 0]].concat()
}

#[test]
fn everything_passes_until_the_driver_says_otherwise() {
    let filter = Filter::new(Features::new(u64::MAX), own());
    assert!(filter.is_open());
    for frame in [to(OTHER), to(GROUP), tagged(OTHER, 7)] {
        assert!(filter.passes(&frame));
    }
}

#[test]
fn only_what_is_for_the_guest_passes_after_that() {
    let mut filter = filter();
    let passes =
        |filter: &Filter| [OWN, OTHER, GROUP, EVERYBODY].map(|to_| filter.passes(&to(to_)));
    assert_eq!(passes(&filter), [true, false, false, true]);
    filter.set_mode(Mode::AllMulticast, true);
    assert_eq!(passes(&filter), [true, false, true, true]);
    filter.set_mode(Mode::NoMulticast, true);
    assert_eq!(passes(&filter), [true, false, false, true]);
    filter.set_mode(Mode::AllUnicast, true);
    assert_eq!(passes(&filter), [true, true, false, true]);
    filter.set_mode(Mode::NoUnicast, true);
    filter.set_mode(Mode::NoBroadcast, true);
    assert_eq!(passes(&filter), [false; 4]);
    filter.set_mode(Mode::Promiscuous, true);
    assert_eq!(passes(&filter), [true; 4]);
}

#[test]
fn tables_add_addresses_and_long_ones_all() {
    let mut filter = filter();
    filter.set_table(Addresses::These(vec![OTHER]), Addresses::These(vec![GROUP]));
    assert!(filter.passes(&to(OTHER)) && filter.passes(&to(GROUP)) && filter.passes(&to(OWN)));
    assert!(!filter.passes(&to([2, 0, 0, 0, 0, 8])) && !filter.passes(&to([1, 0, 0, 0, 0, 8])));
    filter.set_table(Addresses::none(), Addresses::All);
    assert!(!filter.passes(&to(OTHER)) && filter.passes(&to([1, 0, 0, 0, 0, 8])));
}

#[test]
fn an_interface_whose_address_is_not_known_gets_every_one() {
    let mut filter = Filter::new(Features::new(0), None);
    filter.set_mode(Mode::Promiscuous, false);
    assert!(filter.passes(&to(OTHER)) && !filter.passes(&to(GROUP)));
    filter.set_own(own().unwrap());
    assert!(filter.passes(&to(OWN)) && !filter.passes(&to(OTHER)));
}

#[test]
fn only_named_vlans_pass_and_what_has_none() {
    let mut filter = filter();
    assert!(!filter.passes(&tagged(OWN, 5)) && filter.passes(&to(OWN)));
    for id in [0, 5, 4095] {
        filter.set_vlan(id, true);
        // The priority is not part of the number.
        assert!(filter.passes(&tagged(OWN, 0xe000 | id)), "{id}");
    }
    assert!(!filter.passes(&tagged(OWN, 4)) && !filter.passes(&tagged(OTHER, 5)));
    filter.set_vlan(5, false);
    assert!(!filter.passes(&tagged(OWN, 5)) && filter.passes(&tagged(OWN, 4095)));
    // Who takes over does not know which were named.
    let mut taken_over = Filter::open(own());
    taken_over.set_mode(Mode::Promiscuous, false);
    assert!(taken_over.passes(&tagged(OWN, 4)));
}

proptest! {
    #[test]
    fn any_frame_of_any_length_is_looked_at_without_harm(frame in prop::collection::vec(any::<u8>(), 0..18)) {
        let passes = filter().passes(&frame);
        prop_assert!(passes || frame.len() >= 6);
    }
}
