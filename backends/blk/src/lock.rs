//! The lock on a disk image, compatible with QEMU's: so that neither another device process nor
//! QEMU writes to an image in use, whichever comes second.
//!
//! QEMU (`block/file-posix.c`) names permissions by bits and keeps two bytes of the file for each:
//! one is locked, shared, by who uses the permission, the other by who doesn't let others use it.
//! Nothing is ever locked exclusively; who comes second looks whether a byte that stands against
//! it is locked. The locks belong to the open file, not to the process, and end with it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use libc::{F_RDLCK, F_UNLCK, F_WRLCK, SEEK_SET, c_int, c_short, flock, off_t};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// Byte of the permission with bit 0, when it is used.
const USED: off_t = 100;
/// Byte of the permission with bit 0, when it is denied to others.
const DENIED: off_t = 200;

/// Bits of permissions in QEMU's numbering.
const READ: off_t = 0;
const WRITE: off_t = 1;
const RESIZE: off_t = 3;

/// The image can't be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else uses it in a way that excludes ours.
    #[error("the disk image {path} is already in use{}", by(*.holder))]
    InUse {
        /// The image.
        path: PathBuf,
        /// The process that uses it, where it could be found.
        holder: Option<u32>,
    },
    /// The file system failed to lock.
    #[error("cannot lock the disk image {path}")]
    Lock {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn by(holder: Option<u32>) -> String {
    holder.map(|pid| format!(" by process {pid}")).unwrap_or_default()
}

/// Locks `file` for reading, or else for writing, until it is unlocked or closed. Readers share an
/// image; a writer has it for itself.
pub(crate) fn lock(file: &File, path: &Path, read_only: bool) -> Result<(), LockError> {
    let locked = try_lock(file, path, read_only);
    if locked.is_err() {
        unlock(file);
    }
    locked
}

/// Lets others have it.
pub(crate) fn unlock(file: &File) {
    // All that is ever locked; closing the file would do the same.
    let all = flock { l_len: DENIED + 100 - USED, ..byte_lock(F_UNLCK, USED) };
    if let Err(errno) = fcntl(file, FcntlArg::F_OFD_SETLK(&all)) {
        tracing::debug!("cannot unlock the disk image: {errno}");
    }
}

fn try_lock(file: &File, path: &Path, read_only: bool) -> Result<(), LockError> {
    let used: &[off_t] = if read_only { &[READ] } else { &[READ, WRITE] };
    let denied = [WRITE, RESIZE];
    // Lock first and look then: of two that come at once, at least one sees the other.
    let ours = used.iter().map(|bit| USED + bit).chain(denied.iter().map(|bit| DENIED + bit));
    for byte in ours {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&byte_lock(F_RDLCK, byte))) {
            Ok(_) => {}
            Err(errno) if means_none(errno) => {
                tracing::warn!(
                    "the file system of {} has no locks; nothing keeps others from the image",
                    path.display()
                );
                return Ok(());
            }
            Err(errno) => {
                return Err(LockError::Lock { path: path.into(), source: errno.into() });
            }
        }
    }
    let against = used.iter().map(|bit| DENIED + bit).chain(denied.iter().map(|bit| USED + bit));
    for byte in against {
        let mut lock = byte_lock(F_WRLCK, byte);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))
            .map_err(|errno| LockError::Lock { path: path.into(), source: errno.into() })?;
        if c_int::from(lock.l_type) != F_UNLCK {
            return Err(LockError::InUse { path: path.into(), holder: holder(file) });
        }
    }
    Ok(())
}

/// Whether a file system that says so has no locks.
pub(crate) fn means_none(errno: Errno) -> bool {
    matches!(errno, Errno::EINVAL | Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS)
}

pub(crate) fn byte_lock(kind: c_int, byte: off_t) -> flock {
    // The constants are small; `l_pid` has to be zero for this kind of lock.
    flock {
        l_type: kind as c_short,
        l_whence: SEEK_SET as c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

/// A process other than this one that has a lock on `file`. The kernel does not say who holds such
/// a lock, but shows them with each process's open files, as far as we may look.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    // As the kernel prints it: device numbers in hexadecimal, the inode in decimal.
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let name = format!(" {major:02x}:{minor:02x}:{} ", metadata.ino());
    let holds = |pid: u32| {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
            return false;
        };
        open.flatten().any(|fd| {
            fs::read_to_string(fd.path()).is_ok_and(|info| {
                info.lines().any(|line| line.contains("OFDLCK") && line.contains(&name))
            })
        })
    };
    fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| pid != std::process::id())
        .find(|&pid| holds(pid))
}

#[cfg(test)]
#[path = "lock_test.rs"]
mod tests;
