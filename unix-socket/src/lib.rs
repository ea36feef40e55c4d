//! A Unix socket with a name: bound where nobody else listens, its file removed at the end. Who
//! connects to it, and why, is not known here.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind as bind_to, getsockopt, listen,
    socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use tap::TapFallible;

/// What fits into a `sockaddr_un`, without its end (unix(7)).
const PATH_MAX: usize = 107;

/// A socket can't be bound to a path.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel has no room for it.
    #[error("the socket path {path} has {len} bytes, and at most {PATH_MAX} are possible")]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// Somebody listens there.
    #[error("the socket {path} is already served by process {pid}")]
    Served {
        /// The path.
        path: PathBuf,
        /// Who.
        pid: i32,
    },
    /// Something else is there.
    #[error("{path} exists and is not a socket; give another path or remove it")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot listen on the socket {path}")]
    Bind {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whom the umask lets.
    Umask,
    /// The owner alone.
    Owner,
}

/// Binds a stream socket to `path` and listens, in place of one that nobody serves any more.
///
/// # Errors
/// [`SocketError`], naming the path.
pub fn bind(path: &Path, access: Access) -> Result<(UnixListener, SocketFile), SocketError> {
    let len = path.as_os_str().len();
    if len > PATH_MAX {
        return Err(SocketError::TooLong { path: path.into(), len });
    }
    remove_stale(path)?;
    let failed = |source| SocketError::Bind { path: path.into(), source };
    let listener = listen_at(path, access).map_err(failed)?;
    let file = SocketFile::of(path).map_err(failed)?;
    Ok((listener, file))
}

fn listen_at(path: &Path, access: Access) -> io::Result<UnixListener> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if access == Access::Owner {
        // Linux gives the file the mode that the socket has when it is bound, less the umask: so
        // there is no moment at which it is open to others.
        fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    }
    bind_to(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::MAXCONN)?;
    Ok(fd.into())
}

/// A socket's file, removed when dropped unless it is another's by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Leaves the file where it is, to be removed by the caller.
    pub fn keep(self) {
        let Self { path, .. } = &*std::mem::ManuallyDrop::new(self);
        tracing::trace!("{} is removed by another", path.display());
    }

    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _gone = fs::remove_file(&self.path).tap_err(|error| {
                tracing::warn!("cannot remove the socket {}: {error}", self.path.display());
            });
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Removes a socket that nobody serves any more.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let Ok(file) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !file.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.into() });
    }
    let failed = |source| SocketError::Bind { path: path.into(), source };
    match UnixStream::connect(path) {
        Ok(other) => {
            let pid = getsockopt(&other, sockopt::PeerCredentials).map_or(0, |peer| peer.pid());
            Err(SocketError::Served { path: path.into(), pid })
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests;
