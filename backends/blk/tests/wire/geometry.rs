//! Block sizes and what a disk does best: told to the driver, and held to.

use atoll_driver::BlkRequest;

use crate::disk::{Driver, Image, SECTORS};

const BLK_SIZE: u64 = 1 << 6;
const TOPOLOGY: u64 = 1 << 10;

#[test]
fn the_driver_is_told_the_sizes_of_blocks_and_of_good_requests() {
    let image = Image::new();
    let _process = image.serve(&[
        "--logical-block-size=1024",
        "--physical-block-size=4096",
        "--min-io-size=8192",
        "--opt-io-size=1048576",
    ]);
    let mut driver = Driver::attach(&image);
    assert_eq!(driver.device.offered() & (BLK_SIZE | TOPOLOGY), BLK_SIZE | TOPOLOGY);
    let config = driver.device.config(0, 60).unwrap();
    assert_eq!(config[0..8], SECTORS.to_le_bytes(), "in sectors, whatever a block is");
    assert_eq!(config[20..24], 1024_u32.to_le_bytes());
    assert_eq!(config[24..26], [2, 0], "4 blocks are a physical one, and the first begins one");
    assert_eq!(config[26..28], 8_u16.to_le_bytes());
    assert_eq!(config[28..32], 1024_u32.to_le_bytes());
    assert_eq!(config[44..48], 2_u32.to_le_bytes(), "whole blocks are discarded");
}

#[test]
fn a_disk_without_more_to_tell_tells_the_size_of_blocks_only() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    assert_eq!(driver.device.offered() & (BLK_SIZE | TOPOLOGY), BLK_SIZE);
    assert_eq!(driver.device.config(24, 8).unwrap(), [0; 8]);
}

#[test]
fn requests_are_whole_blocks() {
    let image = Image::new();
    let _process = image.serve(&["--logical-block-size=4096"]);
    let mut driver = Driver::attach(&image);
    assert_eq!(driver.read(8, 4096).0, BlkRequest::OK);
    assert_eq!(driver.read(8, 512).0, BlkRequest::IOERR);
    assert_eq!(driver.read(7, 4096).0, BlkRequest::IOERR);
    assert_eq!(driver.write(9, &[1; 4096]), BlkRequest::IOERR);
    let before = image.read(8, 4096);
    let memory = driver.memory();
    let zero = |sector, sectors| {
        BlkRequest::ranges(&memory, BlkRequest::WRITE_ZEROES, &[(sector, sectors, 0)]).unwrap()
    };
    assert_eq!(driver.request(&zero(8, 1)).0, BlkRequest::IOERR);
    assert_eq!(driver.request(&zero(9, 8)).0, BlkRequest::IOERR);
    assert_eq!(image.read(8, 4096), before);
    assert_eq!(driver.request(&zero(8, 8)).0, BlkRequest::OK);
    assert_eq!(image.read(8, 4096), [0; 4096]);
}

#[test]
fn sizes_that_make_no_disk_are_refused_in_one_sentence() {
    let image = Image::new();
    for (options, code, said) in [
        (&["--logical-block-size=1000"][..], 2, "blocks have 512, 1024, 2048 or 4096 bytes"),
        (
            &["--logical-block-size=4096", "--physical-block-size=512"],
            1,
            "physical blocks of 512 bytes are smaller than logical ones of 4096",
        ),
        (&["--opt-io-size=1000"], 1, "--opt-io-size=1000 is not a multiple of the block size 512"),
        (&["--min-io-size=536870912"], 1, "--min-io-size=536870912 is not a multiple"),
    ] {
        let mut process = image.serve(options);
        let (status, stderr) = process.wait().unwrap();
        assert_eq!(status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
}
