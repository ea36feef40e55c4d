//! Files past the page cache: switching to that, and what the kernel then wants of requests.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Where the kernel doesn't say: what every disk of the last decade takes.
const USUAL: u32 = 512;

/// What requests past the page cache are multiples of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectAlignment {
    /// Of memory, in bytes; a power of two.
    pub memory: u32,
    /// Of offsets and lengths, in bytes; a power of two.
    pub offset: u32,
}

/// Lets all that is read from and written to `file` go past the page cache from now on.
///
/// # Errors
/// The kernel's, when the file system can't do that.
pub fn make_direct(file: &File) -> io::Result<DirectAlignment> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_DIRECT))?;
    let known = |size: u32| if size.is_power_of_two() { size } else { USUAL };
    let told = alignment(file)?;
    Ok(DirectAlignment { memory: known(told.memory), offset: known(told.offset).max(USUAL) })
}

/// As the kernel says (since 6.1), or zeroes.
fn alignment(file: &File) -> io::Result<DirectAlignment> {
    // SAFETY: the structure is integers only, for which zeroes are values.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let (flags, wanted) = (libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN);
    // SAFETY: the path is a string, the descriptor is open, and the structure is the kernel's to
    // fill.
    let result = unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, wanted, std::ptr::from_mut(&mut found))
    };
    Errno::result(result)?;
    if found.stx_mask & wanted == 0 {
        return Ok(DirectAlignment { memory: 0, offset: 0 });
    }
    Ok(DirectAlignment { memory: found.stx_dio_mem_align, offset: found.stx_dio_offset_align })
}
