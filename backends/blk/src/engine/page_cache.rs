//! What the host's page cache answers at once, where an image is a file of its bytes: reads of what
//! is there, and writes. All else is the engines'.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use atoll_backend::{Reader, Writer};
use nix::errno::Errno;

use crate::raw::Raw;

/// A write that takes longer waits for the disk.
const SLOW: Duration = Duration::from_millis(1);

/// For how long the next writes are then left to an engine, where others need not wait for them.
const PAUSE: Duration = Duration::from_millis(100);

/// The page cache, as far as it has an image.
pub(crate) struct PageCache {
    raw: Raw,
    /// Whether the file system can say that something is not there.
    tells: bool,
    /// Until when writes are left to an engine.
    busy_until: Option<Instant>,
}

impl PageCache {
    pub(crate) fn new(raw: Raw) -> Self {
        let tells = !raw.is_direct();
        Self { raw, tells, busy_until: None }
    }

    /// Reads, unless it would have to wait; what was read then is consumed.
    pub(crate) fn read(&mut self, offset: u64, data: &mut Writer<'_>) -> Option<io::Result<()>> {
        if !self.tells {
            return None;
        }
        // Such a file system can't say what is not there, for all is. (What the host swapped out
        // is waited for, as it is with the guest's memory.)
        if self.raw.is_in_memory() {
            return Some(data.read_exact_at(self.raw.file().as_fd(), offset));
        }
        match data.read_cached_at(self.raw.file().as_fd(), offset) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) if is_unsupported(&error) => {
                self.tells = false;
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Writes, unless writes have lately had to wait.
    pub(crate) fn write(&mut self, offset: u64, data: &mut Reader<'_>) -> Option<io::Result<()>> {
        if self.raw.is_direct() || self.is_busy() {
            return None;
        }
        // Whether it waits is only seen afterwards.
        let began = Instant::now();
        let result = data.write_all_at(self.raw.file().as_fd(), offset);
        if began.elapsed() > SLOW {
            self.busy_until = Instant::now().checked_add(PAUSE);
        }
        Some(result)
    }

    fn is_busy(&mut self) -> bool {
        let busy = self.busy_until.is_some_and(|until| Instant::now() < until);
        if !busy {
            self.busy_until = None;
        }
        busy
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL))
}
