//! Discard and write-zeroes: what they do to the file on the host, and what each refuses.

use std::os::unix::fs::MetadataExt;

use atoll_driver::BlkRequest;

use crate::disk::{Driver, Image, SECTOR, SECTORS, sector_byte};

const DISCARD: u32 = BlkRequest::DISCARD;
const WRITE_ZEROES: u32 = BlkRequest::WRITE_ZEROES;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;
const F_SECURE_ERASE: u64 = 1 << 16;
const UNMAP: u32 = 1;

fn ask(driver: &mut Driver, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
    let request = BlkRequest::ranges(&driver.memory(), kind, ranges).unwrap();
    driver.request(&request).0
}

/// The space that the image takes on the host, in bytes.
fn allocated(image: &Image) -> u64 {
    image.path().metadata().unwrap().blocks() * 512
}

#[test]
fn a_discard_gives_the_space_of_all_its_ranges_back() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    let before = allocated(&image);
    assert_eq!(ask(&mut driver, DISCARD, &[(64, 128, 0), (1024, 256, 0)]), BlkRequest::OK);
    assert!(allocated(&image) <= before - 384 * 512, "{before} became {}", allocated(&image));
    assert_eq!(image.path().metadata().unwrap().len(), SECTORS * 512);
    assert_eq!(image.read(64, SECTOR), [0; SECTOR]);
    assert_eq!(image.read(63, SECTOR), [sector_byte(63); SECTOR]);
    assert_eq!(image.read(192, SECTOR), [sector_byte(192); SECTOR]);
}

#[test]
fn zeroes_are_written_to_the_sector_and_unmapped_only_if_they_may_be() {
    for (flags, keeps) in [(0, true), (UNMAP, false)] {
        let image = Image::new();
        let _process = image.serve(&[]);
        let mut driver = Driver::attach(&image);
        let before = allocated(&image);
        assert_eq!(ask(&mut driver, WRITE_ZEROES, &[(65, 254, flags)]), BlkRequest::OK);
        assert_eq!(allocated(&image) >= before, keeps);
        assert_eq!(driver.read(65, 254 * 512), (BlkRequest::OK, vec![0; 254 * SECTOR]));
        assert_eq!(image.read(64, SECTOR), [sector_byte(64); SECTOR]);
        assert_eq!(image.read(319, SECTOR), [sector_byte(319); SECTOR]);
    }
}

#[test]
fn ranges_beyond_the_disk_or_the_limits_fail_and_change_nothing() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    let last = SECTORS - 1;
    for kind in [DISCARD, WRITE_ZEROES] {
        for ranges in
            [&[(last, 2, 0)][..], &[(u64::MAX, 1, 0)], &[(0, u32::MAX, 0)], &[], &[(0, 8, 0); 17]]
        {
            assert_eq!(ask(&mut driver, kind, ranges), BlkRequest::IOERR, "{kind} {ranges:?}");
        }
        for flags in [2, 1 << 31] {
            assert_eq!(ask(&mut driver, kind, &[(0, 8, flags)]), BlkRequest::UNSUPP);
        }
        let mut odd = BlkRequest::ranges(&driver.memory(), kind, &[(0, 8, 0); 2]).unwrap();
        odd.data[0].len = 17;
        assert_eq!(driver.request(&odd).0, BlkRequest::IOERR);
    }
    // virtio 1.3 §5.2.6.2: a discard has no flags.
    assert_eq!(ask(&mut driver, DISCARD, &[(0, 8, UNMAP)]), BlkRequest::UNSUPP);
    assert_eq!(ask(&mut driver, DISCARD, &[(0, 8, 0), (last, 2, 0)]), BlkRequest::IOERR);
    assert_eq!(image.read(0, SECTOR), [sector_byte(0); SECTOR]);
    driver.assert_serves();
}

#[test]
fn a_read_only_disk_offers_neither_and_refuses_both() {
    let image = Image::new();
    let _process = image.serve(&["--read-only"]);
    let mut driver = Driver::attach(&image);
    assert_eq!(driver.device.offered() & (F_DISCARD | F_WRITE_ZEROES), 0);
    assert_eq!(driver.device.config(36, 24).unwrap(), [0; 24]);
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(ask(&mut driver, kind, &[(0, 8, 0)]), BlkRequest::IOERR);
    }
    assert_eq!(image.read(0, SECTOR), [sector_byte(0); SECTOR]);
}

#[test]
fn secure_erase_is_not_offered() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let driver = Driver::attach(&image);
    let offered = driver.device.offered() & (F_DISCARD | F_WRITE_ZEROES | F_SECURE_ERASE);
    assert_eq!(offered, F_DISCARD | F_WRITE_ZEROES);
}

/// A disk whose file was cut short behind the process's back fails reads, and the log says which.
#[test]
fn a_failed_read_is_logged_with_its_sector_and_a_thousand_are_not_a_thousand_lines() {
    let image = Image::new();
    let mut process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    let file = std::fs::File::options().write(true).open(image.path()).unwrap();
    file.set_len(1000 * 512).unwrap();
    for _ in 0..1000 {
        assert_eq!(driver.read(1234, 512).0, BlkRequest::IOERR);
    }
    driver.assert_serves();
    let (_, log) = process.terminate().unwrap();
    let lines = log.lines().filter(|line| line.contains("a read at sector 1234 failed on")).count();
    assert!((1..100).contains(&lines), "{log}");
}
