//! The control socket itself: bound where nobody else listens, or inherited from a service manager;
//! its file removed at the end. Who connects, and why, is not known here.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockname, getsockopt, listen,
    socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};

/// What fits into a `sockaddr_un`, without its end (unix(7)).
const PATH_MAX: usize = 107;
/// What a socket unit calls its descriptor with `FileDescriptorName=`.
const ACTIVATION_NAME: &str = "control";

/// There is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel has no room for its path.
    #[error("--control: the path {path} has {len} bytes, and a socket's has at most {PATH_MAX}")]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// Somebody listens there.
    #[error("--control: {path} is already served by process {pid}; give another path")]
    Served {
        /// The path.
        path: PathBuf,
        /// Who.
        pid: i32,
    },
    /// Something else is there.
    #[error("--control: {path} exists and is not a socket; give another path or remove it")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("--control: can't listen on {path}")]
    Bind {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was inherited is something else.
    #[error("the inherited descriptor {fd} (`{ACTIVATION_NAME}`) is not a listening Unix socket")]
    NotListening {
        /// Its number.
        fd: RawFd,
    },
    /// The variables of socket activation contradict themselves.
    #[error("can't take the sockets that the service manager passed (LISTEN_FDS)")]
    Activation(#[source] io::Error),
}

/// A socket on which clients connect.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    /// Where we made it ourselves.
    _file: Option<File>,
}

impl Socket {
    /// Listens at `path`, in place of a socket that nobody serves any more; else on the socket that
    /// the service manager passed. `None` when there is neither.
    ///
    /// # Errors
    /// [`SocketError`], naming the path.
    pub fn open(path: Option<&Path>) -> Result<Option<Self>, SocketError> {
        match path {
            Some(path) => Self::bind(path).map(Some),
            None => Self::inherit(),
        }
    }

    fn bind(path: &Path) -> Result<Self, SocketError> {
        let len = path.as_os_str().len();
        if len > PATH_MAX {
            return Err(SocketError::TooLong { path: path.into(), len });
        }
        remove_stale(path)?;
        let failed = |source| SocketError::Bind { path: path.into(), source };
        let listener = bind_private(path).map_err(failed)?;
        let file = File::of(path).map_err(failed)?;
        Ok(Self { listener, _file: Some(file) })
    }

    fn inherit() -> Result<Option<Self>, SocketError> {
        let passed = sd_notify::listen_fds_with_names().map_err(SocketError::Activation)?;
        let mut passed = passed.filter(|(_, name)| name == ACTIVATION_NAME);
        let Some((fd, _)) = passed.next() else { return Ok(None) };
        // SAFETY: the service manager handed it over by its number, to this process (LISTEN_PID),
        // and nobody else here takes descriptors by that name. This is called once.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        let unix = getsockname::<UnixAddr>(owned.as_raw_fd()).is_ok();
        if !unix || getsockopt(&owned, sockopt::AcceptConn) != Ok(true) {
            return Err(SocketError::NotListening { fd });
        }
        let listener = UnixListener::from(owned);
        listener.set_nonblocking(true).map_err(SocketError::Activation)?;
        Ok(Some(Self { listener, _file: None }))
    }

    /// The next client; `None` when nobody waits.
    pub(super) fn accept(&self) -> io::Result<Option<UnixStream>> {
        use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
        match self.listener.accept() {
            Ok((stream, _unnamed)) => Ok(Some(stream)),
            Err(error) if matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Listens at `path`, where nobody but us may connect.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // Linux gives the file the mode that the socket has when it is bound, less the umask: so there
    // is no moment at which it is open to others.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::MAXCONN)?;
    Ok(fd.into())
}

/// A socket's file, removed when dropped unless it is another's by then.
#[derive(Debug)]
struct File {
    path: PathBuf,
    identity: (u64, u64),
}

impl File {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), identity: identity(path)? })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("can't remove the control socket {}: {error}", self.path.display());
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
#[path = "socket_test.rs"]
mod tests;
