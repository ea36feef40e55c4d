//! Standard input and output that don't block, without others noticing.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// The same file, opened anew where that is possible: not to block is a property of what others
/// share with us, such as the shell that started us.
///
/// # Errors
/// When there is no descriptor left.
pub fn opened_anew(fd: BorrowedFd<'_>, input: bool) -> nix::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let anew = OpenOptions::new().read(input).write(!input).custom_flags(flags).open(path);
    if let Ok(file) = anew
        && !is_seekable(&file)
    {
        return Ok(file.into());
    }
    let failed = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
    let shared = fd.try_clone_to_owned().map_err(failed)?;
    let flags = OFlag::from_bits_retain(fcntl(&shared, FcntlArg::F_GETFL)?);
    fcntl(&shared, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(shared)
}

/// Whether the file has a position, which a new opening would start at zero.
fn is_seekable(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
}
