//! Cache modes: where what a driver wrote is when its request is done, and when its flush is.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use atoll_driver::{BlkRequest, Buffer, Process};

use crate::disk::{ALL_FEATURES, Driver, FLUSH, Image, sector_byte};
use crate::qcow2::{Folder, assert_clean, qemu_img};

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

/// The flags with which a process has a file open.
fn open_flags(process: &Process, path: &Path) -> Vec<i32> {
    let fds = fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().flatten();
    let of_image = fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == path));
    let flags = |fd: fs::DirEntry| {
        let name = fd.file_name().into_string().unwrap();
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{name}", process.id())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        i32::from_str_radix(flags.trim(), 8).unwrap()
    };
    of_image.map(flags).collect()
}

/// Whatever a process reads from a file and writes to it goes past the page cache.
fn assert_direct(process: &Process, path: &Path) {
    let flags = open_flags(process, path);
    assert!(!flags.is_empty(), "{} is not open", path.display());
    assert!(flags.iter().all(|flags| flags & libc::O_DIRECT != 0), "{flags:?}");
}

#[test]
fn without_a_cache_requests_go_past_the_page_cache_from_any_memory() {
    for aio in ["--aio=io_uring", "--aio=threads"] {
        let image = Image::new();
        let process = image.serve(&["--cache=none", aio]);
        let mut driver = Driver::attach(&image);
        driver.assert_serves();
        assert_direct(&process, &image.path());
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

/// A disk over a compressed image over a raw one, none of which ends with a block of the host's, and
/// what it holds.
fn odd_chain(format: &str) -> (Folder, Vec<u8>) {
    let folder = Folder::new();
    let len = (1 << 20) + 1536;
    let mut bytes: Vec<u8> = (0..len).map(|n| (n / 511) as u8).collect();
    // A backing file may end within a sector.
    let end = bytes.len() - 700;
    fs::write(folder.path("base.raw"), &bytes[..end]).unwrap();
    bytes[end..].fill(0);
    if format == "qcow2" {
        fs::write(folder.path("whole.raw"), &bytes).unwrap();
        let paths = ["whole.raw", "base.qcow2"].map(|name| folder.path(name));
        let [whole, base] = paths.each_ref().map(|path| path.to_str().unwrap());
        qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", whole, base]);
    }
    let (base, disk) = (format!("base.{format}"), folder.path("disk.qcow2"));
    let (disk, len) = (disk.to_str().unwrap(), len.to_string());
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", &base, "-F", format, disk, &len]);
    (folder, bytes)
}

#[test]
fn without_a_cache_a_qcow2_image_and_its_backing_files_go_past_the_page_cache() {
    for format in ["raw", "qcow2"] {
        let (folder, mut expected) = odd_chain(format);
        let image = folder.path("disk.qcow2");
        let mut process = folder.serve(&image, &["--format=qcow2", "--cache=none"]);
        let mut driver = folder.driver();
        let mut at = 0;
        // Pieces that are not whole blocks of most hosts.
        while at < expected.len() {
            let len = (5 * 512).min(expected.len() - at);
            let (status, found) = driver.read(at as u64 / 512, len as u32);
            assert_eq!(status, BlkRequest::OK);
            assert!(found == expected[at..at + len], "{format}: {len} bytes at {at}");
            at += len;
        }
        for (sector, byte) in [(3, 1_u8), (200, 2), (2049, 3)] {
            let bytes = vec![byte; 3 * 512 / if sector > 2000 { 3 } else { 1 }];
            assert_eq!(driver.write(sector, &bytes), BlkRequest::OK);
            let at = sector as usize * 512;
            expected[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        assert_direct(&process, &image);
        assert_direct(&process, &folder.path(&format!("base.{format}")));
        drop(driver);
        assert!(process.terminate().unwrap().0.success());
        assert_clean(&image);
        let (from, to) = (image.to_str().unwrap(), folder.path("out.raw"));
        qemu_img(&["convert", "-f", "qcow2", "-O", "raw", from, to.to_str().unwrap()]);
        assert!(fs::read(&to).unwrap() == expected, "{format}");
    }
}

#[test]
fn without_a_cache_a_snapshot_reads_its_base_past_the_page_cache_and_keeps_what_is_written() {
    let image = Image::new();
    let process = image.serve(&["--cache=none", "--snapshot"]);
    let mut driver = Driver::attach(&image);
    assert_eq!(driver.write(9, &[0xcc; 1024]), BlkRequest::OK);
    assert_eq!(driver.read(9, 1024), (BlkRequest::OK, vec![0xcc; 1024]));
    driver.assert_serves();
    assert_direct(&process, &image.path());
    assert_eq!(image.read(9, 512), [sector_byte(9); 512]);
}

#[test]
fn a_file_that_has_no_way_past_the_page_cache_is_named() {
    // The kernel's own files have none.
    let no_way = "/proc/version";
    let folder = Folder::new();
    let said = folder.refusal(no_way.as_ref(), &["--cache=none", "--read-only"]);
    assert!(
        said.contains("--cache=none does not work with the disk image /proc/version"),
        "{said}"
    );
    let disk = folder.path("disk.qcow2");
    let path = disk.to_str().unwrap();
    qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-b", no_way, "-F", "raw", path, "1M"]);
    let served = folder.serve(&disk, &["--format=qcow2", "--cache=none", "--backing-dir=/proc"]);
    let (status, said) = { served }.wait().unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("/proc/version"), "{said}");
    assert!(said.contains("--cache=writeback does"), "{said}");
}
