use super::ConfigSpace;

const NOTHING: ConfigSpace = ConfigSpace {
    mac: None,
    mtu: None,
    queue_pairs: 1,
    speed: None,
    link_up: true,
    announce: false,
};

#[test]
fn fields_stand_where_the_specification_has_them() {
    let space = ConfigSpace {
        mac: "52:54:00:12:34:56".parse().ok(),
        mtu: Some(9000),
        queue_pairs: 4,
        speed: Some(10_000),
        link_up: true,
        announce: true,
    };
    let expected = [
        [0x52, 0x54, 0, 0x12, 0x34, 0x56, 3, 0, 4, 0].as_slice(),
        &[0x28, 0x23, 0x10, 0x27, 0, 0, 1, 0, 0, 0],
    ];
    assert_eq!(space.to_bytes(), expected.concat());
}

#[test]
fn fields_without_a_value_are_zero_or_unknown() {
    let expected = [[0, 0, 0, 0, 0, 0, 1, 0, 1, 0], [0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]];
    assert_eq!(NOTHING.to_bytes(), expected.concat());
}

#[test]
fn a_pulled_cable_is_seen_in_the_status() {
    let status = |link_up, announce| ConfigSpace { link_up, announce, ..NOTHING }.to_bytes()[6];
    assert_eq!([status(true, false), status(false, false), status(false, true)], [1, 0, 2]);
}
