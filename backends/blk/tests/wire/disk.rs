//! A disk under test: an image, the process that serves it, and a driver attached to it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use atoll_driver::{
    BlkRequest, Buffer, EVENT_IDX, FrontEnd, INDIRECT_DESC, Memory, Process, Queue, TIMEOUT, Used,
    VERSION_1,
};
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_atoll-blk");

/// Of the image that tests use unless they say otherwise.
pub(crate) const SECTORS: u64 = 2048;
pub(crate) const SECTOR: usize = 512;

pub(crate) const ALL_FEATURES: u64 = u64::MAX;
pub(crate) const FLUSH: u64 = 1 << 9;
/// What a current driver accepts of the ring's features.
pub(crate) const USUAL: u64 = VERSION_1 | EVENT_IDX | INDIRECT_DESC;

/// A directory with an image whose every byte tells its sector.
pub(crate) struct Image {
    dir: TempDir,
}

impl Image {
    pub(crate) fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// In a file system that is nothing but memory.
    pub(crate) fn in_memory() -> Self {
        Self::within(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    fn within(dir: TempDir) -> Self {
        let image = Self { dir };
        let bytes: Vec<u8> =
            (0..SECTORS).flat_map(|sector| [sector_byte(sector); SECTOR]).collect();
        fs::write(image.path(), bytes).unwrap();
        image
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("disk.img")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("blk.sock")
    }

    /// What is on the host now.
    pub(crate) fn read(&self, sector: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let file = File::open(self.path()).unwrap();
        file.read_exact_at(&mut bytes, sector * SECTOR as u64).unwrap();
        bytes
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes on the host, as nobody should while the image is served.
    #[cfg(debug_assertions)]
    pub(crate) fn write(&self, sector: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(self.path()).unwrap();
        file.write_all_at(bytes, sector * SECTOR as u64).unwrap();
    }

    /// The arguments that serve it.
    pub(crate) fn args(&self) -> [String; 2] {
        [
            format!("--socket-path={}", self.socket().display()),
            format!("--blk-file={}", self.path().display()),
        ]
    }

    pub(crate) fn serve(&self, more: &[&str]) -> Process {
        let args = self.args();
        let all = args.iter().map(String::as_str).chain(more.iter().copied());
        Process::spawn(PROGRAM, all).unwrap()
    }
}

pub(crate) fn sector_byte(sector: u64) -> u8 {
    (sector % 251) as u8
}

/// A driver with one queue.
pub(crate) struct Driver {
    pub(crate) device: FrontEnd,
    pub(crate) queue: Queue,
}

impl Driver {
    pub(crate) fn attach(image: &Image) -> Self {
        Self::attach_with(image, ALL_FEATURES, 128)
    }

    pub(crate) fn attach_with(image: &Image, features: u64, queue_size: u16) -> Self {
        let memory = Memory::new(16 << 20).unwrap();
        let mut device = FrontEnd::connect(image.socket(), memory).unwrap();
        device.negotiate(features).unwrap();
        let queue = device.start_queue(0, queue_size).unwrap();
        Self { device, queue }
    }

    /// A driver at `socket`, unless the device does not start for it.
    pub(crate) fn try_attach(socket: &Path) -> Result<Self, atoll_driver::Error> {
        let mut device = FrontEnd::connect(socket, Memory::new(16 << 20)?)?;
        device.negotiate(ALL_FEATURES)?;
        let queue = device.start_queue(0, 128)?;
        Ok(Self { device, queue })
    }

    pub(crate) fn memory(&self) -> Memory {
        self.device.memory().clone()
    }

    /// Submits a chain and waits for it.
    pub(crate) fn submit(&mut self, buffers: &[Buffer]) -> Used {
        let head = self.queue.submit(buffers).unwrap();
        let used = self.queue.wait(TIMEOUT).unwrap();
        assert_eq!(used.head, head);
        used
    }

    /// Makes a request and waits for it. Returns its status and the length that was used.
    pub(crate) fn request(&mut self, request: &BlkRequest) -> (u8, u32) {
        let used = self.submit(&request.buffers());
        (request.status(self.device.memory()).unwrap(), used.len)
    }

    pub(crate) fn read(&mut self, sector: u64, len: u32) -> (u8, Vec<u8>) {
        let memory = self.memory();
        let request = BlkRequest::read(&memory, sector, len).unwrap();
        let (status, _) = self.request(&request);
        (status, request.bytes(&memory).unwrap())
    }

    pub(crate) fn write(&mut self, sector: u64, bytes: &[u8]) -> u8 {
        let request = BlkRequest::write(self.device.memory(), sector, bytes).unwrap();
        self.request(&request).0
    }

    /// The device still does what it is for.
    pub(crate) fn assert_serves(&mut self) {
        let (status, bytes) = self.read(7, 512);
        assert_eq!((status, bytes), (BlkRequest::OK, vec![sector_byte(7); SECTOR]));
    }
}
