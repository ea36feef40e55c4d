//! A disk that is stored byte by byte, in a file or on a block device.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use atoll_backend::{Reader, Writer};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::image::ImageError;
use crate::ranges::Range;
use crate::storage::Storage;

#[derive(Debug)]
pub(crate) struct Raw(pub(crate) File);

impl Storage for Raw {
    fn begin(&self) -> Result<(), ImageError> {
        Ok(())
    }

    fn end(&self) {}

    fn len(&self) -> io::Result<u64> {
        // The metadata of a block device know nothing of its size; nothing else uses the position.
        (&self.0).seek(SeekFrom::End(0))
    }

    fn read_at(&self, offset: u64, data: &mut Writer<'_>) -> io::Result<()> {
        data.read_exact_at(self.0.as_fd(), offset)
    }

    fn write_at(&self, offset: u64, data: &mut Reader<'_>) -> io::Result<()> {
        data.write_all_at(self.0.as_fd(), offset)
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
        self.0.sync_data()
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        if self.len()? < len { self.0.set_len(len) } else { Ok(()) }
    }
}

impl Raw {
    fn allocate(&self, mode: FallocateFlags, range: Range) -> Result<(), Errno> {
        if range.len == 0 {
            return Ok(());
        }
        let mode = mode | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // Both are within the disk, whose length is a file's.
        let (offset, len) = (range.offset as libc::off_t, range.len as libc::off_t);
        loop {
            match fallocate(&self.0, mode, offset, len) {
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
            self.0.write_all_at(ZEROES.get(..here as usize).unwrap_or_default(), offset)?;
            offset = offset.saturating_add(here);
            left = left.saturating_sub(here);
        }
        Ok(())
    }
}
