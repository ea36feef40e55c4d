//! A host without space: requests fail or wait, as was asked for.

use std::fs;
use std::path::PathBuf;

use atoll_driver::{BlkRequest, FrontEnd, Memory, Process, ProtocolFeatures, Survivor, TIMEOUT};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::disk::{Driver, FLUSH, PROGRAM, USUAL};
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
        (self.run(format, more), Driver::try_attach(&self.socket()).unwrap())
    }

    fn run(&self, format: &str, more: &str) -> Process {
        let socket = format!("--socket-path={}", self.socket().display());
        let file = format!("--blk-file={}", self.image.display());
        let format = format!("--format={format}");
        let mut command = std::process::Command::new(PROGRAM);
        command.args([&socket, &file, &format, more]).env("RUST_LOG", "info");
        Process::run(command.stdin(std::process::Stdio::null())).unwrap()
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
fn what_waits_for_space_fails_when_its_ring_stops_and_there_is_no_record_of_it() {
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

/// A process for which there is no space, with a request that waits for some, and what outlives it.
fn waiting(full: &Full, more: ProtocolFeatures) -> (Process, FrontEnd, Survivor, BlkRequest) {
    let memory = Memory::new(16 << 20).unwrap();
    let write = BlkRequest::write(&memory, 8, &vec![4; MIB + MIB / 2]).unwrap();
    let mut survivor = Survivor::new(memory, 128, USUAL | FLUSH).unwrap();
    survivor.accept(more);
    let process = full.run("raw", "--on-enospc=pause");
    let device = survivor.attach(full.socket()).unwrap();
    survivor.queue.submit(&write.buffers()).unwrap();
    process.wait_for_log("a write at sector 8 waits").unwrap();
    (process, device, survivor, write)
}

/// Whoever serves the disk next does what waits, once there is space.
fn assert_done_by_the_next(full: &Full, mut survivor: Survivor, write: &BlkRequest) {
    assert_eq!(write.status(survivor.memory()).unwrap(), BlkRequest::PENDING);
    fs::remove_file(full.filler()).unwrap();
    let _process = full.run("raw", "--on-enospc=pause");
    let _device = survivor.attach(full.socket()).unwrap();
    survivor.queue.wait(TIMEOUT).unwrap();
    assert_eq!(write.status(survivor.memory()).unwrap(), BlkRequest::OK);
}

#[test]
fn what_waits_for_space_is_left_to_the_next_process_when_this_one_is_asked_to_end() {
    let Some(full) = Full::new("raw") else { return };
    let (mut process, _device, survivor, write) = waiting(&full, ProtocolFeatures::empty());
    let (status, log) = process.terminate().unwrap();
    assert!(status.success() && !log.contains("lost"), "{log}");
    assert_done_by_the_next(&full, survivor, &write);
}

#[test]
fn what_waits_for_space_is_left_to_the_next_process_where_a_ring_may_stop_with_it() {
    let Some(full) = Full::new("raw") else { return };
    let (mut process, mut device, survivor, write) =
        waiting(&full, ProtocolFeatures::GET_VRING_BASE_INFLIGHT);
    device.stop_queue(&survivor.queue).unwrap();
    assert!(process.terminate().unwrap().0.success());
    assert_done_by_the_next(&full, survivor, &write);
}

#[test]
fn what_waits_for_space_fails_when_a_ring_has_to_stop_with_all_done() {
    let Some(full) = Full::new("raw") else { return };
    let (mut process, mut device, mut survivor, write) = waiting(&full, ProtocolFeatures::empty());
    device.stop_queue(&survivor.queue).unwrap();
    survivor.queue.wait(TIMEOUT).unwrap();
    assert_eq!(write.status(survivor.memory()).unwrap(), BlkRequest::IOERR);
    assert!(process.terminate().unwrap().0.success());
}

#[test]
fn what_waits_for_space_goes_on_waiting_when_its_ring_is_set_up_again() {
    let Some(full) = Full::new("raw") else { return };
    let (_process, mut device, mut survivor, write) = waiting(&full, ProtocolFeatures::empty());
    // As when memory is plugged in.
    device.set_memory().unwrap();
    assert_eq!(write.status(survivor.memory()).unwrap(), BlkRequest::PENDING);
    fs::remove_file(full.filler()).unwrap();
    survivor.queue.wait(TIMEOUT).unwrap();
    assert_eq!(write.status(survivor.memory()).unwrap(), BlkRequest::OK);
}
