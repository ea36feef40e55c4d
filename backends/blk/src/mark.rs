//! The mark that a process puts on an image which others read, too. What it had in flight past the
//! page cache when it was killed still goes to its guest's memory, and the kernel keeps its files,
//! and the locks on them, until that has come to an end. So each locks a byte of its own, named
//! after the record of what is in flight; the process that goes on with that record waits for it.
//! It keeps nobody from the image.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libc::{F_RDLCK, F_UNLCK, F_WRLCK, c_int, off_t};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::format::chain::Layer;
use crate::lock::{LockError, byte_lock, means_none};

/// Behind what any file holds.
const FIRST: u64 = 1 << 62;

/// Between two looks.
const PAUSE: Duration = Duration::from_micros(200);

/// The marks of this process on one image.
#[derive(Debug, Default)]
pub(crate) struct Marked(Mutex<u32>);

/// A mark on an image, which ends with the last of them.
#[derive(Debug)]
pub(crate) struct Mark {
    marked: Arc<Marked>,
    file: File,
    byte: off_t,
}

impl Mark {
    /// Marks the file of `layer` with `record`, when no other process's mark of that name is there
    /// any more.
    pub(crate) fn set(
        marked: &Arc<Marked>,
        layer: &Layer,
        record: u64,
        deadline: Instant,
    ) -> Result<Self, LockError> {
        let byte = (FIRST | (record % FIRST)) as off_t;
        let mut count = marked.0.lock().unwrap_or_else(PoisonError::into_inner);
        let path = || layer.path.clone();
        let failed = |source| LockError::Lock { path: path(), source };
        let file = layer.file.file().try_clone().map_err(failed)?;
        let mut waits = false;
        while is_marked(&file, byte).map_err(|errno| failed(errno.into()))? {
            if !waits {
                tracing::info!("waiting for what was in flight on {}", layer.path.display());
                waits = true;
            }
            if Instant::now() > deadline {
                return Err(LockError::InUse { path: path(), holder: None });
            }
            thread::sleep(PAUSE);
        }
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&byte_lock(F_RDLCK, byte))) {
            // Where there are no locks, that has been said.
            Err(errno) if !means_none(errno) => return Err(failed(errno.into())),
            _ => {}
        }
        *count = count.saturating_add(1);
        Ok(Self { marked: Arc::clone(marked), file, byte })
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut count = self.marked.0.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_sub(1);
        if *count == 0
            && let Err(errno) =
                fcntl(&self.file, FcntlArg::F_OFD_SETLK(&byte_lock(F_UNLCK, self.byte)))
        {
            tracing::debug!("cannot unlock the disk image: {errno}");
        }
    }
}

/// Whether another process, or what is left of one, has a lock on that byte.
fn is_marked(file: &File, byte: off_t) -> Result<bool, Errno> {
    let mut lock = byte_lock(F_WRLCK, byte);
    match fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)) {
        Ok(_) => Ok(c_int::from(lock.l_type) != F_UNLCK),
        Err(errno) if means_none(errno) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
#[path = "mark_test.rs"]
mod tests;
