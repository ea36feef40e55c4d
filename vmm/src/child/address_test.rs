//! The same card has the same address for ever, and no two cards share one.

use std::collections::HashSet;

use super::*;

const HOST_ID: &str = "0123456789abcdef0123456789abcdef";
const USUAL: Origin<'_> = Origin { host: Some(HOST_ID), vm: None, id: "net0" };

fn tap(name: &str) -> NetTo {
    NetTo::Tap(name.to_owned())
}

fn vm<'a>(control: &'a str, id: &'a str) -> Origin<'a> {
    Origin { vm: Some(Path::new(control)), id, ..USUAL }
}

#[test]
fn an_address_does_not_change_from_release_to_release() {
    let bridge = NetTo::Bridge("br0".to_owned());
    let user = NetTo::User(Vec::new());
    assert_eq!(derived(&tap("tap0"), USUAL).as_deref(), Some("5e:49:dc:dc:78:06"));
    assert_eq!(derived(&user, USUAL).as_deref(), Some("56:7b:68:6b:8a:f7"));
    assert_eq!(derived(&bridge, vm("/run/web", "net0")).as_deref(), Some("c6:83:c2:cb:4e:52"));
}

#[test]
fn no_two_cards_share_an_address() {
    let (bridge, stream) = (NetTo::Bridge("br0".to_owned()), NetTo::Stream("/run/switch".into()));
    let other_host = Origin { host: Some("00000000000000000000000000000000"), ..USUAL };
    let cards = [
        derived(&tap("tap0"), USUAL),
        derived(&tap("tap1"), USUAL),
        derived(&tap("tap0"), other_host),
        derived(&NetTo::User(Vec::new()), USUAL),
        derived(&NetTo::User(Vec::new()), Origin { id: "net1", ..USUAL }),
        derived(&bridge, vm("/run/web", "net0")),
        derived(&bridge, vm("/run/web", "net1")),
        derived(&stream, vm("/run/mail", "net0")),
        derived(&NetTo::Datagrams("/run/a".into(), "/run/switch".into()), USUAL),
        derived(&NetTo::Datagrams("/run/b".into(), "/run/switch".into()), USUAL),
        derived(&NetTo::StreamServer("/run/c".into()), USUAL),
        derived(&NetTo::StreamServer("/run/d".into()), USUAL),
    ];
    let addresses: HashSet<_> = cards.iter().map(|card| card.as_deref().unwrap()).collect();
    assert_eq!(addresses.len(), cards.len(), "{addresses:?}");
}

#[test]
fn an_address_is_locally_administered_and_not_a_groups() {
    for number in 0..1000 {
        let address = derived(&tap(&format!("tap{number}")), USUAL).unwrap();
        let first = u8::from_str_radix(&address[..2], 16).unwrap();
        assert_eq!(first & 3, 2, "{address}");
        assert_eq!((address.len(), address.split(':').count()), (17, 6), "{address}");
    }
}

#[test]
fn a_card_that_nothing_tells_from_others_has_none() {
    let (bridge, stream) = (NetTo::Bridge("br0".to_owned()), NetTo::Stream("/run/switch".into()));
    assert_eq!(derived(&bridge, USUAL), None, "a machine without a control socket");
    assert_eq!(derived(&stream, USUAL), None, "a machine without a control socket");
    assert_eq!(derived(&NetTo::Macvtap("macvtap0".to_owned()), vm("/run/web", "net0")), None);
    let nowhere = Origin { host: None, ..vm("/run/web", "net0") };
    assert_eq!(derived(&tap("tap0"), nowhere), None);
    assert_eq!(derived(&bridge, nowhere), None);
    assert!(derived(&NetTo::User(Vec::new()), nowhere).is_some(), "nobody else is there");
}
