//! A host without space: requests fail or wait, as was asked for.

use std::fs;
use std::path::PathBuf;

use atoll_driver::{BlkRequest, Process, TIMEOUT};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::disk::{Driver, PROGRAM};
use crate::qcow2::{assert_clean, qemu_img};

const MIB: usize = 1 << 20;

/// A small file system with an image on it, and nothing left beside.
struct Full {
    dir: TempDir,
    image: PathBuf,
}

impl Full {
    /// None where file systems can't be mounted.
    fn new(format: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted =
            mount(Some("none"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=2m"));
        if let Err(errno) = mounted {
            println!("skipped: cannot mount a file system: {errno}");
            return None;
        }
        let image = dir.path().join("disk");
        let path = image.to_str().unwrap();
        qemu_img(&["create", "-q", "-f", format, path, "16M"]);
        let full = Self { dir, image };
        // What may be left, and a little less than there is.
        fs::write(full.filler(), vec![1; MIB + MIB / 4]).unwrap();
        Some(full)
    }

    fn filler(&self) -> PathBuf {
        self.dir.path().join("filler")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    fn serve(&self, format: &str, more: &str) -> (Process, Driver) {
        let socket = format!("--socket-path={}", self.socket().display());
        let file = format!("--blk-file={}", self.image.display());
        let format = format!("--format={format}");
        let mut command = std::process::Command::new(PROGRAM);
        command.args([&socket, &file, &format, more]).env("RUST_LOG", "info");
        let process = Process::run(command.stdin(std::process::Stdio::null())).unwrap();
        (process, Driver::try_attach(&self.socket()).unwrap())
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        umount2(self.dir.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_write_without_space_fails_and_the_log_says_where() {
    for format in ["raw", "qcow2"] {
        let Some(full) = Full::new(format) else { return };
        let (mut process, mut driver) = full.serve(format, "--on-enospc=report");
        assert_eq!(driver.write(8, &vec![2; 2 * MIB]), BlkRequest::IOERR);
        // Space that comes is used.
        fs::remove_file(full.filler()).unwrap();
        assert_eq!(driver.write(8, &vec![3; MIB]), BlkRequest::OK);
        assert_eq!(driver.read(8, MIB as u32), (BlkRequest::OK, vec![3; MIB]));
        drop(driver);
        let (status, log) = process.terminate().unwrap();
        assert!(status.success(), "{log}");
        assert!(log.contains("a write at sector 8 failed"), "{log}");
        if format == "qcow2" {
            assert_clean(&full.image);
        }
    }
}

#[test]
fn a_write_waits_for_space_while_others_go_on() {
    for format in ["raw", "qcow2"] {
        let Some(full) = Full::new(format) else { return };
        let (mut process, mut driver) = full.serve(format, "--on-enospc=pause");
        let memory = driver.memory();
        let write = BlkRequest::write(&memory, 8, &vec![4; MIB + MIB / 2]).unwrap();
        let head = driver.queue.submit(&write.buffers()).unwrap();
        process.wait_for_log("a write at sector 8 waits").unwrap();
        // It can't be done, whenever it is tried; this can.
        let read = BlkRequest::read(&memory, 20_000, 512).unwrap();
        let other = driver.queue.submit(&read.buffers()).unwrap();
        assert_eq!(driver.queue.wait(TIMEOUT).unwrap().head, other);
        assert_eq!(read.status(&memory).unwrap(), BlkRequest::OK);
        assert_eq!(write.status(&memory).unwrap(), BlkRequest::PENDING);
        fs::remove_file(full.filler()).unwrap();
        assert_eq!(driver.queue.wait(TIMEOUT).unwrap().head, head);
        assert_eq!(write.status(&memory).unwrap(), BlkRequest::OK);
        assert_eq!(driver.read(8, MIB as u32), (BlkRequest::OK, vec![4; MIB]));
        drop(driver);
        let (status, log) = process.terminate().unwrap();
        assert!(status.success(), "{log}");
        if format == "qcow2" {
            assert_clean(&full.image);
        }
    }
}

#[test]
fn what_waits_for_space_fails_when_the_ring_stops() {
    let Some(full) = Full::new("raw") else { return };
    let (mut process, mut driver) = full.serve("raw", "--on-enospc=pause");
    let memory = driver.memory();
    let write = BlkRequest::write(&memory, 8, &vec![4; 2 * MIB]).unwrap();
    driver.queue.submit(&write.buffers()).unwrap();
    process.wait_for_log("a write at sector 8 waits").unwrap();
    driver.device.stop_queue(&driver.queue).unwrap();
    driver.queue.wait(TIMEOUT).unwrap();
    assert_eq!(write.status(&memory).unwrap(), BlkRequest::IOERR);
    assert!(process.terminate().unwrap().0.success());
}
