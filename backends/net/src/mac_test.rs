use super::{Mac, MacError};

fn parse(text: &str) -> Result<Mac, MacError> {
    text.parse()
}

#[test]
fn an_address_is_read_and_printed_alike() {
    let mac = parse("52:54:00:Ab:cD:ef").unwrap();
    assert_eq!(mac.octets(), [0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
    assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
}

#[test]
fn anything_but_six_pairs_of_digits_is_refused() {
    for text in [
        "",
        "52:54:00:12:34",
        "52:54:00:12:34:56:78",
        "52-54-00-12-34-56",
        "5:54:00:12:34:56",
        "+5:54:00:12:34:56",
        "52:54:00:12:34:5g",
        "52:54:00:12:34:",
        "ää:54:00:12:34:56",
    ] {
        assert_eq!(parse(text), Err(MacError::Form), "{text}");
    }
}

#[test]
fn the_address_of_a_group_is_refused() {
    assert_eq!(parse("01:00:5e:00:00:01"), Err(MacError::Multicast));
    assert_eq!(parse("ff:ff:ff:ff:ff:ff"), Err(MacError::Multicast));
}

#[test]
fn the_address_of_nobody_is_refused() {
    assert_eq!(parse("00:00:00:00:00:00"), Err(MacError::Zero));
}
