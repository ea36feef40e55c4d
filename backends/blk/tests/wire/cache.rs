//! Cache modes: where what a driver wrote is when its request is done, and when its flush is.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use atoll_driver::{BlkRequest, Buffer, Process};

use crate::disk::{ALL_FEATURES, Driver, FLUSH, Image, sector_byte};

const CONFIG_WCE: u64 = 1 << 11;
const WRITEBACK: u32 = 32;

/// How many pages of the image are in the page cache only; `None` where the kernel (before 6.5) or
/// the file system does not say.
fn dirty_pages(image: &Image) -> Option<u64> {
    let file = File::open(image.path()).unwrap();
    let (whole, mut counts) = ([0_u64; 2], [0_u64; 5]);
    // SAFETY: the system call, cachestat, reads the range and writes the counts.
    let result =
        unsafe { libc::syscall(451, file.as_raw_fd(), whole.as_ptr(), counts.as_mut_ptr(), 0) };
    (result == 0).then_some(counts[1])
}

/// Whether dirty pages can be counted here. It leaves none.
fn can_count(image: &Image) -> bool {
    let file = File::options().write(true).open(image.path()).unwrap();
    file.write_all_at(&image.read(0, 4096), 0).unwrap();
    let counts = dirty_pages(image).is_some_and(|pages| pages > 0);
    file.sync_all().unwrap();
    if !counts || dirty_pages(image) != Some(0) {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        eprintln!("skipped: {name}: the kernel does not count dirty pages here");
        return false;
    }
    true
}

/// Whether a write, and then a flush, is stable when it is done, with these options and features.
fn stable(options: &[&str], features: u64, writeback: Option<u8>) -> Option<(bool, bool)> {
    let image = Image::new();
    if !can_count(&image) {
        return None;
    }
    let _process = image.serve(options);
    let mut driver = Driver::attach_with(&image, features, 128);
    if let Some(writeback) = writeback {
        driver.device.write_config(WRITEBACK, &[writeback]).unwrap();
        assert_eq!(driver.device.config(WRITEBACK, 1).unwrap(), [writeback]);
    }
    assert_eq!(driver.write(8, &[0xcc; 4096]), BlkRequest::OK);
    let after_write = dirty_pages(&image)? == 0;
    let flush = BlkRequest::flush(&driver.memory()).unwrap();
    assert_eq!(driver.request(&flush).0, BlkRequest::OK);
    let after_flush = dirty_pages(&image)? == 0;
    assert_eq!(image.read(8, 4096), [0xcc; 4096]);
    Some((after_write, after_flush))
}

#[test]
fn each_mode_keeps_its_promise() {
    for aio in ["--aio=io_uring", "--aio=threads"] {
        for (mode, promise) in [
            ("--cache=writeback", (false, true)),
            ("--cache=writethrough", (true, true)),
            ("--cache=unsafe", (false, false)),
            // Past the page cache nothing is ever in it.
            ("--cache=none", (true, true)),
        ] {
            let Some(kept) = stable(&[aio, mode], ALL_FEATURES, None) else { return };
            assert_eq!(kept, promise, "{aio} {mode}");
        }
    }
}

#[test]
fn a_driver_that_cannot_flush_gets_stable_writes() {
    let Some(kept) = stable(&[], ALL_FEATURES & !FLUSH & !CONFIG_WCE, None) else { return };
    assert!(kept.0);
}

#[test]
fn the_driver_switches_between_writeback_and_writethrough() {
    let Some(kept) = stable(&["--cache=writeback"], ALL_FEATURES, Some(0)) else { return };
    assert_eq!(kept, (true, true));
    let Some(kept) = stable(&["--cache=writethrough"], ALL_FEATURES, Some(1)) else { return };
    assert_eq!(kept, (false, true));
}

#[test]
fn the_switch_is_offered_read_and_reset() {
    let image = Image::new();
    let process = image.serve(&["--cache=writethrough"]);
    let mut driver = Driver::attach(&image);
    assert_eq!(driver.device.offered() & CONFIG_WCE, CONFIG_WCE);
    assert_eq!(driver.device.config(WRITEBACK, 1).unwrap(), [0]);
    driver.device.write_config(WRITEBACK, &[1]).unwrap();
    assert_eq!(driver.device.config(WRITEBACK, 1).unwrap(), [1]);
    drop(driver);
    let mut driver = Driver::attach(&image);
    assert_eq!(driver.device.config(WRITEBACK, 1).unwrap(), [0], "another driver starts anew");
    drop((driver, process));

    let _process = image.serve(&["--read-only"]);
    let mut driver = Driver::attach(&image);
    assert_eq!(driver.device.offered() & CONFIG_WCE, 0);
    driver.device.write_config(WRITEBACK, &[1]).unwrap_err();
}

/// The flags with which a process has the image open.
fn open_flags(process: &Process, image: &Image) -> Vec<i32> {
    let fds = fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().flatten();
    let of_image = fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == image.path()));
    let flags = |fd: fs::DirEntry| {
        let name = fd.file_name().into_string().unwrap();
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{name}", process.id())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        i32::from_str_radix(flags.trim(), 8).unwrap()
    };
    of_image.map(flags).collect()
}

#[test]
fn without_a_cache_requests_go_past_the_page_cache_from_any_memory() {
    for aio in ["--aio=io_uring", "--aio=threads"] {
        let image = Image::new();
        let process = image.serve(&["--cache=none", aio]);
        let mut driver = Driver::attach(&image);
        driver.assert_serves();
        let flags = open_flags(&process, &image);
        assert!(!flags.is_empty());
        assert!(flags.iter().all(|flags| flags & libc::O_DIRECT != 0), "{flags:?}");
        // Memory that no disk takes: it begins at an odd address, and is in odd pieces.
        let memory = driver.memory();
        let room = memory.allocate(70_000, 4096).unwrap() + 1;
        let pieces = |writable: bool| {
            let piece = |addr, len| Buffer { addr, len, writable };
            vec![piece(room, 513), piece(room + 513, 65_535), piece(room + 66_048, 512)]
        };
        let read = BlkRequest::new(&memory, BlkRequest::IN, 3, pieces(true)).unwrap();
        assert_eq!(driver.request(&read), (BlkRequest::OK, 66_561));
        let bytes = read.bytes(&memory).unwrap();
        for (sector, found) in (3..).zip(bytes.chunks(512)) {
            assert_eq!(found, [sector_byte(sector); 512], "{aio}: sector {sector}");
        }
        let written: Vec<u8> = (0..66_560_u32).map(|n| (n / 7) as u8).collect();
        memory.write(room, &written).unwrap();
        let write = BlkRequest::new(&memory, BlkRequest::OUT, 100, pieces(false)).unwrap();
        assert_eq!(driver.request(&write).0, BlkRequest::OK);
        assert!(image.read(100, 66_560) == written, "{aio}");
        assert_eq!(image.read(230, 512), [sector_byte(230); 512]);
    }
}
