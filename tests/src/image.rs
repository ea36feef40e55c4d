//! Disk images: made before a guest starts, looked at after it has ended.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::artifacts;
use crate::process::tool;
use crate::scratch::Scratch;

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

const SECTOR: usize = 512;

/// A raw disk image in a directory of its own.
pub struct Image {
    path: PathBuf,
    _scratch: Scratch,
}

impl Image {
    /// An image of `size` zero bytes, none of which takes space yet.
    #[track_caller]
    pub fn blank(size: u64) -> Self {
        let scratch = Scratch::new();
        let path = scratch.join("disk.img");
        File::create(&path).and_then(|file| file.set_len(size)).expect("make a disk image");
        Self { path, _scratch: scratch }
    }

    /// An empty disk of `size` bytes in qcow2, of as few clusters as that takes: the header, the
    /// refcount table and its only block, the L1 table.
    #[track_caller]
    pub fn qcow2(size: u64) -> Self {
        const CLUSTER: usize = 64 << 10;
        let mut bytes = vec![0; 4 * CLUSTER];
        let mut put = |at: usize, number: &[u8]| {
            bytes[at..at + number.len()].copy_from_slice(number);
        };
        put(0, b"QFI\xfb");
        // Version, cluster bits, L1 entries, clusters of the refcount table, refcount order, length.
        let entries = u32::try_from(size.div_ceil(512 * MIB)).expect("a small disk");
        for (at, word) in [(4, 3), (20, 16), (36, entries), (56, 1), (96, 4), (100, 104)] {
            put(at, &u32::to_be_bytes(word));
        }
        // Size, where the tables are, and the one entry there is.
        let clusters = [size, 3 * CLUSTER as u64, CLUSTER as u64, 2 * CLUSTER as u64];
        for (at, long) in [24, 40, 48, CLUSTER].into_iter().zip(clusters) {
            put(at, &long.to_be_bytes());
        }
        (0..4).for_each(|cluster| put(2 * CLUSTER + 2 * cluster, &[0, 1]));
        let image = Self::blank(0);
        std::fs::write(&image.path, bytes).expect("write a disk image");
        image
    }

    /// The bytes that it takes on the host.
    #[track_caller]
    pub fn space(&self) -> u64 {
        std::fs::metadata(&self.path).expect("look at a disk image").blocks() * 512
    }

    /// An image of `size` bytes with an empty ext4 on it.
    #[track_caller]
    pub fn ext4(size: u64) -> Self {
        let image = Self::blank(size);
        let path = image.path.to_str().expect("scratch paths are text");
        tool("mke2fs", ["-q", "-t", "ext4", path]);
        image
    }

    /// An image of `size` bytes in which no two sectors are equal, so that data in a wrong place
    /// shows.
    #[track_caller]
    pub fn patterned(size: u64) -> Self {
        let image = Self::blank(size);
        let size = usize::try_from(size).expect("a size that fits into memory");
        std::fs::write(&image.path, pattern(size)).expect("fill a disk image");
        image
    }

    /// A copy of the Debian root file system, for one guest to write to.
    #[track_caller]
    pub fn debian() -> Self {
        let scratch = Scratch::new();
        let path = scratch.join("root.ext4");
        let (from, to) = (artifacts::get("root.ext4"), path.to_str().expect("text"));
        let from = from.to_str().expect("artifact paths are text");
        tool("cp", ["--sparse=always", "--reflink=auto", from, to]);
        Self { path, _scratch: scratch }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the tools of its file system say is wrong with it.
    ///
    /// # Panics
    /// When they find anything.
    #[track_caller]
    pub fn check_ext4(&self) {
        tool("e2fsck", ["-f".as_ref(), "-n".as_ref(), self.path.as_os_str()]);
    }

    /// The MD5 sum of the file `inside` its ext4, read without mounting it.
    #[track_caller]
    pub fn md5_of_file(&self, inside: &str) -> String {
        self.with_file(inside, md5)
    }

    /// The contents of the file `inside` its ext4, read without mounting it.
    #[track_caller]
    pub fn read_file(&self, inside: &str) -> Vec<u8> {
        self.with_file(inside, |copy| std::fs::read(copy).expect("read a file of the image"))
    }

    #[track_caller]
    fn with_file<T>(&self, inside: &str, look: impl FnOnce(&Path) -> T) -> T {
        let scratch = Scratch::new();
        let copy = scratch.join("file");
        let request = format!("dump {inside} {}", copy.display());
        tool("debugfs", ["-R".as_ref(), request.as_ref(), self.path.as_os_str()]);
        look(&copy)
    }

    /// The MD5 sum of the whole image.
    #[track_caller]
    pub fn md5(&self) -> String {
        md5(&self.path)
    }
}

/// `size` bytes in which no two sectors are equal.
pub fn pattern(size: usize) -> Vec<u8> {
    // An odd factor makes a permutation of the sectors' numbers.
    let word = |sector: u64| sector.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let mut bytes = Vec::with_capacity(size.next_multiple_of(SECTOR));
    let sectors = 0..size.div_ceil(SECTOR) as u64;
    sectors.for_each(|sector| bytes.extend_from_slice(&word(sector).repeat(SECTOR / 8)));
    bytes.truncate(size);
    bytes
}

/// The MD5 sum of the file at `path`.
#[track_caller]
pub fn md5(path: &Path) -> String {
    sum(&tool("md5sum", [path]))
}

/// The MD5 sum of bytes that are not all there at once.
pub struct Md5(Child);

impl Md5 {
    /// Of nothing yet.
    ///
    /// # Panics
    /// Without an `md5sum` on this machine.
    #[track_caller]
    #[expect(clippy::new_without_default, reason = "it starts a process")]
    pub fn new() -> Self {
        let mut program = Command::new("md5sum");
        program.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(program.spawn().expect("start md5sum"))
    }

    /// Adds `bytes`.
    #[track_caller]
    pub fn add(&mut self, bytes: &[u8]) {
        let pipe = self.0.stdin.as_mut().expect("a pipe to md5sum");
        pipe.write_all(bytes).expect("write to md5sum");
    }

    /// The sum of all that was added.
    #[track_caller]
    pub fn finish(self) -> String {
        let output = self.0.wait_with_output().expect("wait for md5sum");
        sum(&String::from_utf8_lossy(&output.stdout))
    }
}

fn sum(line: &str) -> String {
    line.split_whitespace().next().expect("md5sum prints a sum").to_owned()
}
