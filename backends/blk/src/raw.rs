//! A disk that is stored byte by byte, in a file or on a block device.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use atoll_backend::{DirectAlignment, Reader, Writer};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use crate::file::Aligned;
use crate::image::ImageError;
use crate::ranges::Range;
use crate::storage::Storage;

/// How much is copied at once where the kernel does not take the guest's own memory.
const CHUNK: usize = 64 << 10;

/// A file of a disk's bytes.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    file: Arc<File>,
    /// What the kernel wants of requests past the page cache, where they go there.
    direct: Option<DirectAlignment>,
    /// Whether all its bytes are always in memory.
    in_memory: bool,
}

impl Storage for Raw {
    fn begin(&self) -> Result<(), ImageError> {
        Ok(())
    }

    fn end(&self) {}

    fn len(&self) -> io::Result<u64> {
        // The metadata of a block device know nothing of its size; nothing else uses the position.
        self.file().seek(SeekFrom::End(0))
    }

    fn read_at(&self, offset: u64, data: &mut Writer<'_>) -> io::Result<()> {
        match self.copies(data.is_aligned(self.memory_alignment())) {
            false => data.read_exact_at(self.file.as_fd(), offset),
            true => self.read_copied(offset, data),
        }
    }

    fn write_at(&self, offset: u64, data: &mut Reader<'_>) -> io::Result<()> {
        match self.copies(data.is_aligned(self.memory_alignment())) {
            false => data.write_all_at(self.file.as_fd(), offset),
            true => self.write_copied(offset, data),
        }
    }

    fn discard(&self, range: Range) -> io::Result<()> {
        match self.allocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, range) {
            Err(Errno::EOPNOTSUPP) => Ok(()),
            done => done.map_err(Into::into),
        }
    }

    fn write_zeroes(&self, range: Range) -> io::Result<()> {
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

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn raw(&self) -> Option<&Raw> {
        Some(self)
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        if self.len()? < len { self.file.set_len(len) } else { Ok(()) }
    }
}

impl Raw {
    pub(crate) fn new(file: File, direct: Option<DirectAlignment>) -> Self {
        let in_memory = fstatfs(&file).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC);
        Self { file: Arc::new(file), direct, in_memory }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether all its bytes are always in memory, so that no read waits for a disk.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// Whether requests go past the page cache.
    pub(crate) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// The multiples at which the kernel takes memory.
    pub(crate) fn memory_alignment(&self) -> usize {
        self.direct.map_or(1, |direct| direct.memory as usize)
    }

    /// Whether memory that is, or is not, aligned so has to be copied.
    pub(crate) fn copies(&self, aligned: bool) -> bool {
        self.is_direct() && !aligned
    }

    fn read_copied(&self, mut offset: u64, data: &mut Writer<'_>) -> io::Result<()> {
        let mut chunk = Aligned::new(data.len().min(CHUNK), self.memory_alignment());
        while !data.is_empty() {
            let bytes = chunk.bytes(data.len());
            self.file.read_exact_at(bytes, offset)?;
            offset = offset.saturating_add(data.copy_from(bytes) as u64);
        }
        Ok(())
    }

    fn write_copied(&self, mut offset: u64, data: &mut Reader<'_>) -> io::Result<()> {
        let mut chunk = Aligned::new(data.len().min(CHUNK), self.memory_alignment());
        while !data.is_empty() {
            let bytes = chunk.bytes(data.len());
            let count = data.copy_to(bytes) as u64;
            self.file.write_all_at(bytes, offset)?;
            offset = offset.saturating_add(count);
        }
        Ok(())
    }

    fn allocate(&self, mode: FallocateFlags, range: Range) -> Result<(), Errno> {
        if range.len == 0 {
            return Ok(());
        }
        let mode = mode | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // Both are within the disk, whose length is a file's.
        let (offset, len) = (range.offset as libc::off_t, range.len as libc::off_t);
        loop {
            match fallocate(self.file(), mode, offset, len) {
                Err(Errno::EINTR) => {}
                done => return done,
            }
        }
    }

    fn write_zero_bytes(&self, range: Range) -> io::Result<()> {
        let mut zeroes = Aligned::new(16 << 10, self.memory_alignment());
        let (mut offset, mut left) = (range.offset, range.len);
        while left > 0 {
            let bytes = zeroes.bytes(usize::try_from(left).unwrap_or(usize::MAX));
            self.file.write_all_at(bytes, offset)?;
            offset = offset.saturating_add(bytes.len() as u64);
            left = left.saturating_sub(bytes.len() as u64);
        }
        Ok(())
    }
}
