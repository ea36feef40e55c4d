//! The host loses its power: what was flushed, or written through, is on its disk.
//!
//! The image lies on a file system on a loop device. A copy of what is behind that device, made
//! while it is in use, has what was written to the disk and lacks what the page cache still had, and
//! the file system's own notes of where new blocks are. What a disk's volatile cache may lose
//! besides is not seen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use atoll_driver::{BlkRequest, Process};
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use crate::disk::{Driver, PROGRAM, SECTOR};
use crate::qcow2::qemu_img;
use crate::random::Dice;

/// Of the image.
const SECTORS: u64 = (4 << 20) / SECTOR as u64;
const ROUNDS: usize = 4;
/// Of requests in each.
const REQUESTS: usize = 12;
/// The longest, in sectors.
const LONGEST: u64 = 128;
const UNMAP: u32 = 1;

/// A host with one disk.
struct Host {
    dir: TempDir,
    format: &'static str,
}

impl Host {
    /// None where loop devices can't be had.
    fn new(format: &'static str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let host = Self { dir, format };
        fs::create_dir(host.folder()).unwrap();
        let platter = fs::File::create(host.platter()).unwrap();
        platter.set_len(32 << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(host.platter())).unwrap();
        // Nothing is written that nobody asked for, while it is copied least of all.
        match mount(&host.platter(), &host.folder(), "commit=300") {
            Ok(()) => {
                let image = host.image(&host.folder());
                let image = image.to_str().unwrap();
                qemu_img(&["create", "-q", "-f", format, image, "4M"]);
                run(Command::new("sync").args(["--file-system", image])).unwrap();
                Some(host)
            }
            Err(error) => {
                println!("skipped: no loop device: {error}");
                None
            }
        }
    }

    fn platter(&self) -> PathBuf {
        self.dir.path().join("platter")
    }

    /// Where the disk is mounted.
    fn folder(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    fn image(&self, folder: &Path) -> PathBuf {
        folder.join("image")
    }

    fn serve(&self, option: &str) -> (Process, Driver) {
        let socket = self.dir.path().join("sock");
        let args = [
            format!("--socket-path={}", socket.display()),
            format!("--blk-file={}", self.image(&self.folder()).display()),
            format!("--format={}", self.format),
            option.to_owned(),
        ];
        let process = Process::spawn(PROGRAM, args).unwrap();
        (process, Driver::try_attach(&socket).unwrap())
    }

    /// What a guest would read, were the power cut now and back again.
    fn after_a_power_cut(&self) -> Vec<u8> {
        let (copy, folder) = (self.dir.path().join("copy"), self.dir.path().join("recovered"));
        let raw = self.dir.path().join("raw");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(self.platter(), &copy).unwrap();
        mount(&copy, &folder, "rw").unwrap();
        let (image, raw_name) = (self.image(&folder), raw.to_str().unwrap());
        let image = image.to_str().unwrap();
        qemu_img(&["convert", "-f", self.format, "-O", "raw", image, raw_name]);
        umount2(&folder, MntFlags::empty()).unwrap();
        fs::read(raw).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Not mounted where that could not be done.
        let _ = umount2(&self.folder(), MntFlags::MNT_DETACH);
    }
}

fn mount(device: &Path, folder: &Path, options: &str) -> Result<(), String> {
    let options = format!("loop,{options}");
    run(Command::new("mount").args(["-t", "ext4", "-o", &options]).arg(device).arg(folder))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

/// Writes and zeroes here and there, on the disk and in `model`.
fn change(driver: &mut Driver, model: &mut [u8], dice: &mut Dice) {
    for _ in 0..REQUESTS {
        let sectors = 1 + dice.roll(LONGEST);
        let sector = dice.roll(SECTORS - sectors);
        let byte = dice.roll(256) as u8;
        let zeroes = dice.roll(4) == 0;
        let there = sector as usize * SECTOR..(sector + sectors) as usize * SECTOR;
        let status = if zeroes {
            let range = [(sector, sectors as u32, u32::from(byte) & UNMAP)];
            let memory = driver.memory();
            let request = BlkRequest::ranges(&memory, BlkRequest::WRITE_ZEROES, &range).unwrap();
            driver.request(&request).0
        } else {
            driver.write(sector, &vec![byte; there.len()])
        };
        assert_eq!(status, BlkRequest::OK);
        model[there].fill(if zeroes { 0 } else { byte });
    }
}

fn flush(driver: &mut Driver) {
    let request = BlkRequest::flush(&driver.memory()).unwrap();
    assert_eq!(driver.request(&request).0, BlkRequest::OK);
}

/// Does requests in rounds, each of them flushed if so wished. Returns what a disk has to hold after
/// the last of them, and what it does hold after a power cut.
fn before_and_after(host: &Host, option: &str, flushes: bool) -> (Vec<u8>, Vec<u8>) {
    let (mut process, mut driver) = host.serve(option);
    let mut model = vec![0; SECTORS as usize * SECTOR];
    let mut dice = Dice(0x5eed);
    for _ in 0..ROUNDS {
        change(&mut driver, &mut model, &mut dice);
        if flushes {
            flush(&mut driver);
        }
    }
    let after = host.after_a_power_cut();
    drop(driver);
    assert!(process.terminate().unwrap().0.success());
    (model, after)
}

#[test]
fn what_was_flushed_is_there_after_a_power_cut() {
    for (format, option) in [
        ("raw", "--aio=io_uring"),
        ("raw", "--aio=threads"),
        ("raw", "--cache=none"),
        ("qcow2", "--cache=writeback"),
        ("qcow2", "--cache=none"),
    ] {
        let Some(host) = Host::new(format) else { return };
        let (model, after) = before_and_after(&host, option, true);
        assert!(model == after, "{format} {option}");
    }
}

#[test]
fn what_was_written_through_is_there_without_a_flush() {
    for format in ["raw", "qcow2"] {
        let Some(host) = Host::new(format) else { return };
        let (model, after) = before_and_after(&host, "--cache=writethrough", false);
        assert!(model == after, "{format}");
    }
}

#[test]
fn where_flushes_do_nothing_as_asked_for_a_power_cut_is_noticed() {
    // Somebody else on this machine may have all of its disks written, but not each time.
    let lost = (0..5).any(|_| {
        let Some(host) = Host::new("raw") else { return true };
        let (model, after) = before_and_after(&host, "--cache=unsafe", true);
        model != after
    });
    assert!(lost, "these tests would not notice a flush that does nothing");
}
