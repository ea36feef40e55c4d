//! Names in the file system that this process made, and removes at its end: sockets and links. It
//! can remove exactly these when it can open nothing any more.
//!
//! A filter of system calls can't follow a pointer. But it can compare one: the names lie in a page
//! that is read-only from [`seal`] on, and `unlinkat` is allowed with their addresses and folders
//! only. The page is the lowest of all, so that the filter can keep the calls that change mappings
//! above it by one comparison.

use std::ffi::{CStr, CString};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use atoll_unix_socket::{self as unix_socket, Access, SocketError};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use tap::TapFallible;

/// Room for the names of a console with as many ports as there can be.
const LENGTH: usize = 0x4000;
/// Below every mapping that the kernel places by itself, and above what it forbids
/// (`vm.mmap_min_addr`).
const PLACES: std::ops::Range<usize> = 0x10..0x40;
const PLACE: usize = 0x1_0000;

/// All names, and where they are.
static NAMES: Mutex<Names> = Mutex::new(Names { page: None, used: 0, names: Vec::new() });

struct Names {
    /// Its address; a page that is never unmapped.
    page: Option<usize>,
    used: usize,
    names: Vec<Name>,
}

/// One name, at its place in the page.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) folder: Arc<OwnedFd>,
    pub(super) name: &'static CStr,
}

/// The names at the time of [`seal`].
pub(super) struct Sealed {
    pub(super) names: Vec<Name>,
    /// The last address of their page.
    pub(super) last: Option<usize>,
}

/// Listens at `path`; the file is removed with the name, also from within the sandbox.
///
/// # Errors
/// [`SocketError`], naming the path.
pub fn bind(path: &Path, access: Access) -> Result<(UnixListener, OwnName), SocketError> {
    let (listener, file) = unix_socket::bind(path, access)?;
    let failed = |source| SocketError::Bind { path: path.into(), source };
    let name = OwnName::of(path).map_err(failed)?;
    // From here on it is the name's to remove.
    file.keep();
    Ok((listener, name))
}

/// A name in the file system, removed when dropped unless it is another's by then.
#[derive(Debug)]
pub struct OwnName {
    path: PathBuf,
    name: Name,
    identity: Identity,
}

/// Device, inode, and when it was made: inodes are used again.
type Identity = (u64, u64, i64, i64);

impl OwnName {
    /// Takes what is at `path`, which this process has just made. Before the sandbox is entered.
    ///
    /// # Errors
    /// When there is nothing, or too much.
    pub fn of(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = Arc::new(open(folder, flags, Mode::empty())?);
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let name = names.place(&CString::new(name.as_bytes())?)?;
        let name = Name { folder, name };
        let identity = identity(&name)?;
        names.names.push(name.clone());
        Ok(Self { path: path.into(), name, identity })
    }
}

impl Drop for OwnName {
    fn drop(&mut self) {
        if identity(&self.name).is_ok_and(|now| now == self.identity) {
            let removed = unlinkat(&self.name.folder, self.name.name, UnlinkatFlags::NoRemoveDir);
            let _gone = removed.tap_err(|error| {
                tracing::warn!("cannot remove {}: {error}", self.path.display());
            });
        }
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        names.names.retain(|name| name.name.as_ptr() != self.name.name.as_ptr());
    }
}

fn identity(name: &Name) -> nix::Result<Identity> {
    // A `CStr` goes to the kernel by its own address.
    let found = fstatat(&name.folder, name.name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok((found.st_dev, found.st_ino, found.st_mtime, found.st_mtime_nsec))
}

impl Names {
    /// Copies a name to where it stays for ever.
    fn place(&mut self, name: &CStr) -> io::Result<&'static CStr> {
        let page = match self.page {
            Some(page) => page,
            None => *self.page.insert(map()?),
        };
        let bytes = name.to_bytes_with_nul();
        let end = self.used.checked_add(bytes.len()).filter(|&end| end <= LENGTH);
        let end = end.ok_or(io::ErrorKind::StorageFull)?;
        let at = std::ptr::with_exposed_provenance_mut::<u8>(page.saturating_add(self.used));
        // SAFETY: the page is ours, mapped for good and writable until it is sealed, after which
        // nothing is placed; the bytes fit into what is left of it, which nobody refers to.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
        self.used = end;
        // SAFETY: the bytes of a `CStr` were just written there, and are never written again.
        Ok(unsafe { CStr::from_ptr(at.cast()) })
    }
}

/// Makes the page, lower than all else.
fn map() -> io::Result<usize> {
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
    let length = NonZeroUsize::new(LENGTH).ok_or(Errno::EINVAL)?;
    let mut last = Errno::ENOMEM;
    for place in PLACES {
        let address = NonZeroUsize::new(place.saturating_mul(PLACE));
        // SAFETY: the kernel replaces nothing that is there.
        match unsafe { mmap_anonymous(address, length, protection, flags) } {
            Ok(page) => return Ok(page.as_ptr().expose_provenance()),
            Err(errno) => last = errno,
        }
    }
    Err(last.into())
}

/// From now on no name changes, and none is added.
pub(super) fn seal() -> nix::Result<Sealed> {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    names.used = LENGTH;
    if let Some(page) = names.page.map(std::ptr::with_exposed_provenance_mut)
        && let Some(page) = NonNull::new(page)
    {
        // SAFETY: the page is ours, and its users only read.
        unsafe { mprotect(page, LENGTH, ProtFlags::PROT_READ) }?;
    }
    Ok(Sealed {
        names: names.names.clone(),
        last: names.page.map(|page| page.saturating_add(LENGTH - 1)),
    })
}

/// Changes a name, as only somebody who trespasses would.
#[cfg(all(feature = "kill-points", debug_assertions))]
pub(super) fn change() {
    let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(page) = names.page.map(std::ptr::with_exposed_provenance_mut::<u8>) {
        // SAFETY: the page is ours and mapped; the fault is what this is for.
        unsafe { page.write_volatile(b'/') };
    }
}

/// Makes the names changeable again, as only somebody who trespasses would.
#[cfg(all(feature = "kill-points", debug_assertions))]
pub(super) fn overwrite() -> io::Result<()> {
    let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let page = names.page.map(std::ptr::with_exposed_provenance_mut).and_then(NonNull::new);
    let page = page.ok_or(io::ErrorKind::NotFound)?;
    // SAFETY: the page is ours, and nobody writes to it.
    unsafe { mprotect(page, LENGTH, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) }?;
    Ok(())
}

impl Name {
    /// The folder's descriptor, and the address of the name: what the filter compares.
    pub(super) fn arguments(&self) -> (i32, u64) {
        (self.folder.as_fd().as_raw_fd(), self.name.as_ptr().expose_provenance() as u64)
    }
}
