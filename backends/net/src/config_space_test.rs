use super::ConfigSpace;

#[test]
fn fields_stand_where_the_specification_has_them() {
    let space =
        ConfigSpace { mac: "52:54:00:12:34:56".parse().ok(), mtu: Some(9000), queue_pairs: 1 };
    let expected = [0x52, 0x54, 0, 0x12, 0x34, 0x56, 1, 0, 1, 0, 0x28, 0x23];
    assert_eq!(space.to_bytes(), expected);
}

#[test]
fn fields_without_a_value_are_zero() {
    let space = ConfigSpace { mac: None, mtu: None, queue_pairs: 1 };
    assert_eq!(space.to_bytes(), [0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0]);
}
