//! How sizes read and print.

use super::*;

#[test]
fn sizes_read_as_people_write_them() {
    for (text, bytes) in [
        ("4096", 4096),
        ("512M", 512 << 20),
        ("512m", 512 << 20),
        ("512MiB", 512 << 20),
        ("2G", 2 << 30),
        ("2GB", 2 << 30),
        ("1T", 1 << 40),
        ("64K", 64 << 10),
        ("0", 0),
    ] {
        assert_eq!(text.parse::<Size>().unwrap(), Size(bytes), "{text}");
    }
}

#[test]
fn what_is_no_size_is_refused() {
    for text in ["", "M", "-1", "+1", "1.5G", "12X", "0x1000", "99999999999999999999", "16777216T"]
    {
        assert!(text.parse::<Size>().is_err(), "{text:?}");
    }
}

#[test]
fn sizes_print_in_the_largest_unit_that_is_exact() {
    assert_eq!(Size(512 << 20).to_string(), "512 MiB");
    assert_eq!(Size(3 << 30).to_string(), "3 GiB");
    assert_eq!(Size((3 << 30) + 512).to_string(), "3221225984 bytes");
    assert_eq!(Size(0).to_string(), "0 bytes");
}
