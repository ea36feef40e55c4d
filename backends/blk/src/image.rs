//! A disk image: opened, checked and claimed; read, written and made durable by the sector range
//! that the caller has checked. It knows no virtio.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use atoll_backend::{Reader, Writer};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::lock::{self, LockError};
use crate::ranges::Range;

/// The unit of virtio-blk, whatever the disk's own (virtio 1.3 §5.2.4).
pub(crate) const SECTOR: u64 = 512;

/// The file can't serve as a disk image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is not there, or can't be looked at.
    #[error("cannot open the disk image {path}")]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It may be read but not written.
    #[error("cannot write to the disk image {path}; --read-only would only read it")]
    NotWritable {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is neither a file nor a block device.
    #[error("{path} is {kind}, not a disk image")]
    NotADisk {
        /// Its path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// There is nothing in it.
    #[error("the disk image {path} is empty; `truncate -s SIZE` gives it a size")]
    Empty {
        /// Its path.
        path: PathBuf,
    },
    /// It ends within a sector.
    #[error("the disk image {path} has {len} bytes, which is not a multiple of {SECTOR}")]
    Misaligned {
        /// Its path.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// Somebody else uses it.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// An open disk image, locked against other users for as long as there is a [`Claim`] on it.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
    path: PathBuf,
    len: u64,
    read_only: bool,
    /// How many claims there are.
    claims: Mutex<u32>,
}

/// A claim on an image: no other user gets the lock on it while there is one.
#[derive(Debug)]
pub(crate) struct Claim(Arc<Image>);

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.0.claims.lock().unwrap_or_else(PoisonError::into_inner);
        *claims = claims.saturating_sub(1);
        if *claims == 0 {
            lock::unlock(&self.0.file);
        }
    }
}

impl Image {
    pub(crate) fn open(path: &Path, read_only: bool) -> Result<Self, ImageError> {
        let failed = |source| ImageError::Open { path: path.into(), source };
        // Before it is opened, because opening has effects of its own on some kinds of file.
        check_kind(path, std::fs::metadata(path).map_err(failed)?.file_type())?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .custom_flags(libc::O_CLOEXEC)
            .open(path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                    if !read_only && File::open(path).is_ok() =>
                {
                    ImageError::NotWritable { path: path.into(), source }
                }
                _ => failed(source),
            })?;
        // The metadata of a block device know nothing of its size.
        let len = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if len == 0 {
            return Err(ImageError::Empty { path: path.into() });
        }
        if !len.is_multiple_of(SECTOR) {
            return Err(ImageError::Misaligned { path: path.into(), len });
        }
        Ok(Self { file, path: path.into(), len, read_only, claims: Mutex::default() })
    }

    /// Claims the image, which fails while somebody else has it. Claims of this process share it.
    pub(crate) fn claim(self: &Arc<Self>) -> Result<Claim, LockError> {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if *claims == 0 {
            lock::lock(&self.file, &self.path, self.read_only)?;
        }
        *claims = claims.saturating_add(1);
        Ok(Claim(Arc::clone(self)))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes, a multiple of [`SECTOR`].
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Fills `buffers` with what is at `offset`.
    pub(crate) fn read(&self, offset: u64, buffers: &mut Writer<'_>) -> io::Result<()> {
        buffers.read_exact_at(self.file.as_fd(), offset)
    }

    /// Writes `buffers` to `offset`.
    pub(crate) fn write(&self, offset: u64, buffers: &mut Reader<'_>) -> io::Result<()> {
        buffers.write_all_at(self.file.as_fd(), offset)
    }

    /// Returns when all that was written before is on stable storage.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Gives the space of `range` back to the host, where the host can take it: it is advice.
    pub(crate) fn discard(&self, range: Range) -> io::Result<()> {
        match self.allocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, range) {
            Err(Errno::EOPNOTSUPP) => Ok(()),
            done => done.map_err(Into::into),
        }
    }

    /// Makes `range` read as zeroes; it keeps its space unless it may be unmapped.
    pub(crate) fn write_zeroes(&self, range: Range) -> io::Result<()> {
        let mode = if range.unmap {
            FallocateFlags::FALLOC_FL_PUNCH_HOLE
        } else {
            FallocateFlags::FALLOC_FL_ZERO_RANGE
        };
        match self.allocate(mode, range) {
            // Not every file system has both.
            Err(Errno::EOPNOTSUPP) => self.write_zero_bytes(range),
            done => done.map_err(Into::into),
        }
    }

    fn allocate(&self, mode: FallocateFlags, range: Range) -> Result<(), Errno> {
        if range.len == 0 {
            return Ok(());
        }
        let mode = mode | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // Both are within the disk, whose length is a file's.
        let (offset, len) = (range.offset as libc::off_t, range.len as libc::off_t);
        loop {
            match fallocate(&self.file, mode, offset, len) {
                Err(Errno::EINTR) => {}
                done => return done,
            }
        }
    }

    fn write_zero_bytes(&self, range: Range) -> io::Result<()> {
        static ZEROES: [u8; 16 << 10] = [0; 16 << 10];
        let (mut offset, mut left) = (range.offset, range.len);
        while left > 0 {
            let here = left.min(ZEROES.len() as u64);
            self.file.write_all_at(ZEROES.get(..here as usize).unwrap_or_default(), offset)?;
            offset = offset.saturating_add(here);
            left = left.saturating_sub(here);
        }
        Ok(())
    }
}

fn check_kind(path: &Path, kind: FileType) -> Result<(), ImageError> {
    let kind = match kind {
        kind if kind.is_file() || kind.is_block_device() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_char_device() => "a character device",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "neither a file nor a block device",
    };
    Err(ImageError::NotADisk { path: path.into(), kind })
}

#[cfg(test)]
#[path = "image_test.rs"]
mod tests;
