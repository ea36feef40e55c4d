use std::fs;
use std::io::Write;

use super::*;

/// A file of `len` bytes that tell where they are, whose requests are multiples of 512 and 4096.
fn file(len: usize) -> (tempfile::NamedTempFile, Vec<u8>, ImageFile) {
    let mut named = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..len).map(|at| (at / 3) as u8).collect();
    named.write_all(&bytes).unwrap();
    let direct = DirectAlignment { memory: 512, offset: 4096 };
    let file = ImageFile::with_alignment(named.reopen().unwrap(), Some(direct));
    (named, bytes, file)
}

/// Places and lengths around the edges of blocks and of what is copied at once.
const PLACES: [u64; 9] = [0, 1, 511, 512, 4095, 4096, 4097, 65_535, 131_000];
const LENGTHS: [usize; 9] = [1, 8, 512, 4095, 4096, 4097, 65_536, 70_001, 200_000];

#[test]
fn any_part_of_a_file_can_be_read_and_zeros_are_behind_it() {
    let (_named, bytes, file) = file(133_000);
    for offset in PLACES {
        for len in LENGTHS {
            let mut found = vec![0xaa; len];
            file.read_or_zero(&mut found, offset).unwrap();
            let mut expected = bytes[offset as usize..].to_vec();
            expected.resize(len, 0);
            assert!(found == expected, "{len} bytes at {offset}");
        }
    }
}

#[test]
fn any_part_of_a_file_can_be_written_and_all_else_stays() {
    for offset in PLACES {
        for len in LENGTHS {
            let (named, mut expected, file) = file(133_000);
            file.write_all_at(&vec![0xee; len], offset).unwrap();
            let end = offset as usize + len;
            expected.resize(expected.len().max(end), 0);
            expected[offset as usize..end].fill(0xee);
            let found = fs::read(named.path()).unwrap();
            assert!(found[..expected.len()] == expected, "{len} bytes at {offset}");
            assert!(found[expected.len()..].iter().all(|byte| *byte == 0));
        }
    }
}
