//! Images in qcow2 format, made and judged by `qemu-img`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use atoll_driver::{BlkRequest, Process};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::disk::{Driver, PROGRAM};

pub(crate) const MIB: u64 = 1 << 20;
/// Of every disk here.
const LEN: u64 = 64 * MIB;

pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Where flushes cost nothing, if there is such a place.
    pub(crate) fn in_memory() -> Self {
        Self(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes an image with `qemu-img create` and the options given.
    pub(crate) fn create(&self, name: &str, options: &[&str]) -> PathBuf {
        let path = self.path(name);
        let size = LEN.to_string();
        let mut args = vec!["create", "-q", "-f", "qcow2"];
        args.extend(options);
        args.extend([path.to_str().unwrap(), &size]);
        qemu_img(&args);
        path
    }

    pub(crate) fn serve(&self, image: &Path, more: &[&str]) -> Process {
        let args = [
            format!("--socket-path={}", self.path("sock").display()),
            format!("--blk-file={}", image.display()),
        ];
        let args = args.iter().map(String::as_str).chain(more.iter().copied());
        Process::spawn(PROGRAM, args).unwrap()
    }

    pub(crate) fn driver(&self) -> Driver {
        Driver::try_attach(&self.path("sock")).unwrap()
    }

    /// The sentence with which an image is refused.
    pub(crate) fn refusal(&self, image: &Path, more: &[&str]) -> String {
        let (status, stderr) = self.serve(image, more).wait().unwrap();
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(image.file_name().unwrap().to_str().unwrap()), "{stderr}");
        stderr
    }
}

pub(crate) fn qemu_img(args: &[&str]) -> String {
    let output = Command::new("qemu-img").args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "qemu-img {args:?}: {said}{stderr}");
    said
}

pub(crate) fn assert_clean(image: &Path) {
    let said = qemu_img(&["check", "-f", "qcow2", image.to_str().unwrap()]);
    assert!(said.contains("No errors were found"), "{said}");
}

fn block(byte: u8) -> Vec<u8> {
    vec![byte; 12 << 10]
}

/// Writes here and there; the byte tells where.
pub(crate) fn fill(driver: &mut Driver, salt: u8) {
    for n in 0..40u64 {
        let sector = (n * n * 331) % (LEN / 512 - 24);
        assert_eq!(driver.write(sector, &block(salt.wrapping_add(n as u8))), BlkRequest::OK);
    }
    assert_eq!(flush(driver), BlkRequest::OK);
}

fn flush(driver: &mut Driver) -> u8 {
    let request = BlkRequest::flush(&driver.memory()).unwrap();
    driver.request(&request).0
}

/// What the whole disk holds, through the process.
fn contents(driver: &mut Driver) -> Vec<u8> {
    let memory = driver.memory();
    let request = BlkRequest::read(&memory, 0, MIB as u32).unwrap();
    let mut read = |n: u64| {
        memory.write(request.header + 8, &(n * MIB / 512).to_le_bytes()).unwrap();
        assert_eq!(driver.request(&request).0, BlkRequest::OK);
        request.bytes(&memory).unwrap()
    };
    (0..LEN / MIB).flat_map(&mut read).collect()
}

/// What it holds, through `qemu-img`.
fn converted(folder: &Folder, image: &Path) -> Vec<u8> {
    let raw = folder.path("converted");
    qemu_img(&["convert", "-O", "raw", image.to_str().unwrap(), raw.to_str().unwrap()]);
    fs::read(raw).unwrap()
}

#[test]
fn every_kind_that_qemu_makes_is_read_and_written_and_left_clean() {
    for options in [
        &["-o", "compat=0.10"][..],
        &["-o", "compat=1.1"],
        &["-o", "compat=1.1,cluster_size=4k,refcount_bits=1"],
        &["-o", "compat=1.1,cluster_size=2M,refcount_bits=64,lazy_refcounts=on"],
        &["-o", "preallocation=metadata"],
    ] {
        let folder = Folder::new();
        let image = folder.create("disk.qcow2", options);
        let mut process = folder.serve(&image, &["--format=qcow2"]);
        let mut driver = folder.driver();
        fill(&mut driver, 1);
        let seen = contents(&mut driver);
        drop(driver);
        assert!(process.terminate().unwrap().0.success());
        assert_clean(&image);
        assert!(converted(&folder, &image) == seen, "{options:?}");
    }
}

#[test]
fn backing_files_and_compressed_clusters_show_through_and_stay_as_they_are() {
    let folder = Folder::new();
    let (raw, base) = (folder.path("base.raw"), folder.path("base.qcow2"));
    let bytes: Vec<u8> = (0..LEN).map(|n| (n / 4096 % 253) as u8).collect();
    fs::write(&raw, &bytes).unwrap();
    let [from, to] = [&raw, &base].map(|path| path.to_str().unwrap());
    qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", from, to]);
    let middle = folder.create("middle.qcow2", &["-b", "base.qcow2", "-F", "qcow2"]);
    let top = folder.create("top.qcow2", &["-b", "middle.qcow2", "-F", "qcow2"]);
    let before = [&base, &middle].map(|path| fs::read(path).unwrap());

    let mut process = folder.serve(&top, &["--format=auto"]);
    let mut driver = folder.driver();
    assert!(contents(&mut driver) == bytes);
    fill(&mut driver, 100);
    let seen = contents(&mut driver);
    assert!(seen != bytes);
    drop(driver);
    process.terminate().unwrap();
    assert_clean(&top);
    assert!(converted(&folder, &top) == seen);
    assert!(before == [&base, &middle].map(|path| fs::read(path).unwrap()));
}

#[test]
fn zeroes_are_read_where_they_were_written_also_over_a_backing_file_and_after_kill_9() {
    for compat in ["compat=0.10", "compat=1.1"] {
        let folder = Folder::new();
        let base = folder.path("base.raw");
        fs::write(&base, vec![7; LEN as usize]).unwrap();
        let image = folder.create("disk.qcow2", &["-o", compat, "-b", "base.raw", "-F", "raw"]);
        let mut model = vec![7; LEN as usize];
        for round in 0..2u64 {
            let mut process = folder.serve(&image, &["--format=qcow2"]);
            let mut driver = folder.driver();
            let memory = driver.memory();
            for n in 0..12u64 {
                // Neither starts nor ends at a cluster.
                let (sector, sectors) = (round * 9973 + n * n * 613 + 5, 300 + n as u32 * 7);
                assert_eq!(driver.write(sector + 100, &block(n as u8 + 1)), BlkRequest::OK);
                let at = (sector as usize + 100) * 512;
                model[at..at + block(0).len()].fill(n as u8 + 1);
                let unmap = (n % 2) as u32;
                let ranges = [(sector, sectors, unmap)];
                let kind = BlkRequest::WRITE_ZEROES;
                let request = BlkRequest::ranges(&memory, kind, &ranges).unwrap();
                assert_eq!(driver.request(&request).0, BlkRequest::OK);
                model[sector as usize * 512..][..sectors as usize * 512].fill(0);
            }
            assert!(contents(&mut driver) == model, "{compat} round {round}");
            process.signal(Signal::SIGKILL).unwrap();
            process.wait().unwrap();
        }
        let mut process = folder.serve(&image, &["--format=qcow2"]);
        let mut driver = folder.driver();
        assert!(contents(&mut driver) == model, "{compat} at the end");
        let memory = driver.memory();
        let ranges = [(0, 40_000, 0)];
        let request = BlkRequest::ranges(&memory, BlkRequest::DISCARD, &ranges).unwrap();
        assert_eq!(driver.request(&request).0, BlkRequest::OK);
        let seen = contents(&mut driver);
        assert!(seen[40_000 * 512..] == model[40_000 * 512..]);
        drop(driver);
        process.terminate().unwrap();
        assert_clean(&image);
        assert!(converted(&folder, &image) == seen, "{compat}");
    }
}

#[test]
fn an_image_that_was_not_closed_is_not_served_read_only_and_qemu_repairs_it() {
    let folder = Folder::new();
    let image = folder.create("disk.qcow2", &[]);
    let mut process = folder.serve(&image, &["--format=qcow2"]);
    fill(&mut folder.driver(), 3);
    process.signal(Signal::SIGKILL).unwrap();
    process.wait().unwrap();
    let said = folder.refusal(&image, &["--format=qcow2", "--read-only"]);
    assert!(said.contains("was not closed properly"), "{said}");
    qemu_img(&["check", "-q", "-r", "all", image.to_str().unwrap()]);
    assert_clean(&image);
}

#[test]
fn a_snapshot_leaves_the_image_alone_and_shares_it() {
    let folder = Folder::new();
    let image = folder.create("disk.qcow2", &[]);
    let mut process = folder.serve(&image, &["--format=qcow2"]);
    fill(&mut folder.driver(), 1);
    process.terminate().unwrap();
    let before = fs::read(&image).unwrap();

    let other = Folder::new();
    let mut processes =
        [&folder, &other].map(|at| at.serve(&image, &["--format=qcow2", "--snapshot"]));
    let [mut one, mut two] = [&folder, &other].map(Folder::driver);
    let shared = contents(&mut two);
    fill(&mut one, 9);
    assert!(contents(&mut one) != shared, "what is written is read");
    assert!(contents(&mut two) == shared, "what another writes is not");
    drop(one);
    assert!(contents(&mut folder.driver()) != shared, "a front-end that comes back finds its disk");
    for process in &mut processes {
        assert!(process.terminate().unwrap().0.success());
    }
    assert!(fs::read(&image).unwrap() == before);
}

#[test]
fn nobody_else_writes_to_any_file_of_the_chain() {
    let folder = Folder::new();
    let base = folder.create("base.qcow2", &[]);
    let top = folder.create("top.qcow2", &["-b", "base.qcow2", "-F", "qcow2"]);
    let _process = folder.serve(&top, &["--format=qcow2"]);
    let _driver = folder.driver();
    for (image, command) in [(&top, "write 0 512"), (&base, "write 0 512"), (&top, "read 0 512")] {
        let output =
            Command::new("qemu-io").args(["-f", "qcow2", "-c", command]).arg(image).output();
        let output = output.unwrap();
        assert!(!output.status.success(), "{command} of {image:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("lock"), "{stderr}");
    }
    let other = Folder::new();
    assert!(other.refusal(&base, &["--format=qcow2"]).contains("already in use"));
}

#[test]
fn another_process_takes_the_image_over_as_the_first_left_it() {
    let folder = Folder::new();
    let image = folder.create("disk.qcow2", &[]);
    let mut old = folder.serve(&image, &["--format=qcow2"]);
    let mut driver = folder.driver();
    let socket = format!("--socket-path={}", folder.path("new").display());
    let blk_file = format!("--blk-file={}", image.display());
    let mut new =
        Process::spawn(PROGRAM, [&socket, &blk_file, "--format=qcow2", "--takeover"]).unwrap();
    fill(&mut driver, 50);
    let seen = contents(&mut driver);
    driver.device.stop_queue(&driver.queue).unwrap();
    let mut next = Driver::try_attach(&folder.path("new")).unwrap();
    assert!(contents(&mut next) == seen);
    fill(&mut next, 60);
    let seen = contents(&mut next);
    drop(driver);
    old.terminate().unwrap();
    drop(next);
    new.terminate().unwrap();
    assert_clean(&image);
    assert!(converted(&folder, &image) == seen);
}

#[test]
fn what_the_guest_discards_takes_no_space() {
    let folder = Folder::new();
    let image = folder.create("disk.qcow2", &[]);
    let blocks = || fs::metadata(&image).unwrap().blocks();
    let mut process = folder.serve(&image, &["--format=qcow2"]);
    let mut driver = folder.driver();
    let memory = driver.memory();
    let request = BlkRequest::write(&memory, 0, &vec![7; MIB as usize]).unwrap();
    for n in 0..16u64 {
        memory.write(request.header + 8, &(n * 2048).to_le_bytes()).unwrap();
        assert_eq!(driver.request(&request).0, BlkRequest::OK);
    }
    let full = blocks();
    assert!(full >= 16 * 2048, "{full}");
    for (kind, range) in [
        (BlkRequest::DISCARD, (0, 8 * 2048, 0)),
        (BlkRequest::WRITE_ZEROES, (8 * 2048, 4 * 2048, 1)),
    ] {
        let request = BlkRequest::ranges(&memory, kind, &[range]).unwrap();
        assert_eq!(driver.request(&request).0, BlkRequest::OK);
    }
    // The file system may need some for its own tables.
    assert!(blocks() <= full - 11 * 2048, "{full} {}", blocks());
    // Zeroes that may not be unmapped keep their space.
    let before = blocks();
    let range = [(12 * 2048, 2048, 0)];
    let request = BlkRequest::ranges(&memory, BlkRequest::WRITE_ZEROES, &range).unwrap();
    assert_eq!(driver.request(&request).0, BlkRequest::OK);
    assert!(blocks() >= before);
    assert!(contents(&mut driver)[..13 * MIB as usize].iter().all(|byte| *byte == 0));
    drop(driver);
    process.terminate().unwrap();
    assert_clean(&image);
    // Nor does the file stay longer than it has to be.
    assert!(fs::metadata(&image).unwrap().len() < 18 * MIB);
}

#[test]
fn a_file_that_grows_is_a_disk_that_grows() {
    let folder = Folder::new();
    let image = folder.path("disk.raw");
    fs::write(&image, vec![1; MIB as usize]).unwrap();
    let process = folder.serve(&image, &[]);
    let mut driver = folder.driver();
    let capacity = |driver: &mut Driver| {
        u64::from_le_bytes(driver.device.config(0, 8).unwrap().try_into().unwrap())
    };
    assert_eq!(capacity(&mut driver), 2048);
    assert_eq!(driver.write(2048, &[2; 512]), BlkRequest::IOERR);
    fs::File::options().write(true).open(&image).unwrap().set_len(2 * MIB).unwrap();
    process.signal(Signal::SIGHUP).unwrap();
    driver.device.wait_config_change(atoll_driver::TIMEOUT).unwrap();
    assert_eq!(capacity(&mut driver), 4096);
    assert_eq!(driver.write(2048, &[2; 512]), BlkRequest::OK);
    // Shorter is not seen.
    fs::File::options().write(true).open(&image).unwrap().set_len(MIB).unwrap();
    process.signal(Signal::SIGHUP).unwrap();
    assert_eq!(driver.read(0, 512), (BlkRequest::OK, vec![1; 512]));
    assert_eq!(capacity(&mut driver), 4096);
}
