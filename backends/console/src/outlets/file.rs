//! A file that output is added to. Nobody types into it.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::outlet::{OpenError, Outlet, ReaderId};
use crate::window::Size;

/// A log of the console.
pub(super) struct LogFile(Option<File>);

impl LogFile {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let failed = |source| OpenError::File { path: path.into(), source };
        Ok(Self(Some(opened.map_err(failed)?)))
    }
}

impl Outlet for LogFile {
    fn readers(&self) -> Vec<(ReaderId, BorrowedFd<'_>)> {
        self.0.iter().map(|file| (0, file.as_fd())).collect()
    }

    fn input(&self) -> Option<(ReaderId, BorrowedFd<'_>)> {
        None
    }

    fn read(&mut self, _keys: &mut [u8]) -> nix::Result<Option<usize>> {
        Ok(None)
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn check(&mut self) {}

    fn input_ended(&mut self) {}

    fn reader_left(&mut self, _reader: ReaderId, reason: &str) {
        tracing::warn!("the console's output is no longer added to its file: {reason}");
        self.0 = None;
    }

    fn window(&self) -> Option<Size> {
        None
    }
}
