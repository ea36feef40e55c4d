//! A file that output is added to, or a named pipe. Nobody types into it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::outlet::{OpenError, Outlet, ReaderId};
use crate::window::Size;

/// A log of the console.
pub(super) struct LogFile(Option<File>);

impl LogFile {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        // Whoever reads a pipe may stop doing so; with a file on a disk it makes no difference. Nor is a pipe's
        // reader waited for here, where no signal would be heard.
        let flags = libc::O_NONBLOCK;
        let opened = OpenOptions::new().create(true).append(true).custom_flags(flags).open(path);
        let failed = |source: io::Error| match source.raw_os_error() {
            Some(libc::ENXIO) if is_pipe(path) => OpenError::NobodyReads { path: path.into() },
            _ => OpenError::File { path: path.into(), source },
        };
        Ok(Self(Some(opened.map_err(failed)?)))
    }
}

fn is_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
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
