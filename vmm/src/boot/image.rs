//! A file to boot from: open, its length known, every read checked against it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use crate::memory::GuestRam;

/// An open kernel or initrd.
#[derive(Debug)]
pub(super) struct Image {
    what: &'static str,
    path: PathBuf,
    file: File,
    size: u64,
}

impl Image {
    /// Opens it. What it is to be goes into the errors.
    pub(super) fn open(what: &'static str, path: &Path) -> Result<Self, BootError> {
        let read = |source| BootError::Read { what, path: path.into(), source };
        // A FIFO without a writer must not keep us waiting before we can say that it is one.
        let open = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = open.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => BootError::Missing { what, path: path.into() },
            _ => read(error),
        })?;
        let metadata = file.metadata().map_err(read)?;
        if !metadata.is_file() {
            return Err(BootError::NotAFile { what, path: path.into() });
        }
        Ok(Self { what, path: path.into(), file, size: metadata.len() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length when it was opened.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// That the first `needed` bytes are there, which `None` says would be more than can be.
    pub(super) fn has(&self, needed: Option<u64>) -> Result<(), BootError> {
        let needed = needed.unwrap_or(u64::MAX);
        if needed <= self.size {
            return Ok(());
        }
        Err(BootError::Truncated { path: self.path.clone(), needed, size: self.size })
    }

    /// Fills `bytes` from `offset`.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), BootError> {
        self.has(u64::try_from(bytes.len()).ok().and_then(|len| offset.checked_add(len)))?;
        self.file.read_exact_at(bytes, offset).map_err(|source| self.unreadable(source))
    }

    /// The first `len` bytes, or as many as there are.
    pub(super) fn head(&self, len: u64) -> Result<Vec<u8>, BootError> {
        let mut head = Vec::new();
        (&self.file)
            .rewind()
            .and_then(|()| (&self.file).take(len).read_to_end(&mut head))
            .map_err(|source| self.unreadable(source))?;
        Ok(head)
    }

    /// Copies `len` bytes from `offset` into guest memory.
    pub(super) fn copy_to(
        &self,
        ram: &GuestRam,
        address: u64,
        offset: u64,
        len: u64,
    ) -> Result<(), BootError> {
        self.has(offset.checked_add(len))?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset)).map_err(|source| self.unreadable(source))?;
        // The kernel copies at most 2 GiB minus a page in one call.
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let copied = ram.memory().read_exact_volatile_from(GuestAddress(address), &mut file, len);
        copied.map_err(|error| match error {
            vm_memory::GuestMemoryError::IOError(source) => self.unreadable(source),
            other => other.into(),
        })
    }

    fn unreadable(&self, source: io::Error) -> BootError {
        BootError::Read { what: self.what, path: self.path.clone(), source }
    }
}
