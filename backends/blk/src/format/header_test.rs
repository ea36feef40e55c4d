use std::io::Write;

use super::*;

/// A header of version 3 over four clusters of 64 KiB: itself, refcounts, L1 table.
fn header() -> Vec<u8> {
    let mut bytes = vec![0; 4 << 16];
    let words: [(usize, u32); 8] =
        [(4, 3), (20, 16), (36, 1), (56, 1), (96, 4), (100, 104), (28, 1 << 20), (60, 0)];
    bytes[..4].copy_from_slice(&MAGIC);
    for (at, value) in words {
        bytes[at..][..4].copy_from_slice(&value.to_be_bytes());
    }
    bytes[40..48].copy_from_slice(&(3u64 << 16).to_be_bytes());
    bytes[48..56].copy_from_slice(&(1u64 << 16).to_be_bytes());
    bytes
}

fn load(bytes: &[u8]) -> Result<Header, Defect> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Header::load(&ImageFile::new(file, false).unwrap())
}

#[test]
fn a_sound_header_is_accepted() {
    let header = load(&header()).unwrap();
    assert_eq!((header.size, header.cluster_bits, header.l1_entries), (1 << 20, 16, 1));
    assert!(!header.dirty && header.backing.is_none());
}

#[test]
fn each_defect_is_named() {
    let cases: &[(usize, &[u8], &str)] = &[
        (0, b"QFJ", "does not begin"),
        (7, &[4], "version 4"),
        (23, &[8], "cluster size's logarithm is 8"),
        (23, &[40], "cluster size's logarithm is 40"),
        (35, &[1], "encrypted"),
        (79, &[2], "marked corrupt"),
        (79, &[4], "external data file"),
        (79, &[8], "compression type"),
        (79, &[16], "extended L2"),
        (78, &[1], "bit 8"),
        (24, &[0xff], "disk's size"),
        (24, &[0, 0, 0xff], "L1 table's number of entries"),
        (36, &[0xff], "L1 table's number of entries"),
        (46, &[1], "address"),
        (40, &[1], "L1 table lies beyond"),
        (48, &[1], "refcount table lies beyond"),
        (56, &[1], "refcount table's number"),
        (99, &[7], "refcounts' width"),
        (103, &[9], "header's length"),
        (104, &[1, 0, 0, 0, 0xff], "extension of its header"),
        (104, &[0x68, 3, 0xf8, 0x57, 0, 0, 0, 49], "feature names"),
        (104, &[0x05, 0x37, 0xbe, 0x77, 0, 0, 0, 0], "encrypted"),
    ];
    for (at, bytes, words) in cases {
        let mut image = header();
        image[*at..][..bytes.len()].copy_from_slice(bytes);
        let said = load(&image).unwrap_err().to_string();
        let found = said.contains(words) || (*words == "address" && said.contains("0x30100"));
        assert!(found, "{words:?} is not in {said:?}");
    }
}

#[test]
fn no_header_cut_short_is_accepted() {
    for len in (0..300).chain([65536, 3 << 16]) {
        assert!(load(&header()[..len]).is_err(), "{len}");
    }
}
