//! The socket to the front-end: made, inherited or activated, and cleaned up behind us. What is
//! said over it is the session's.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::{env, fs};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{UnixAddr, getsockname, getsockopt, sockopt};
use tap::TapFallible;

use crate::args::Args;
use crate::signals::EndRequest;

/// What fits into a `sockaddr_un`, with its end.
const PATH_MAX: usize = 107;

/// The first descriptor that socket activation passes (sd_listen_fds(3)).
const FIRST_ACTIVATED: RawFd = 3;

/// There is no socket to the front-end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("one of --socket-path=PATH and --fd=N says where the front-end is; neither is given")]
    Nowhere,
    #[error("the socket path {path} has {len} bytes, and at most {PATH_MAX} are possible")]
    TooLong { path: PathBuf, len: usize },
    #[error("the socket {path} is already served by process {pid}")]
    Served { path: PathBuf, pid: i32 },
    #[error("{path} exists and is not a socket; give another --socket-path or remove it")]
    NotASocket { path: PathBuf },
    #[error("cannot listen on the socket {path}")]
    Bind { path: PathBuf, source: io::Error },
    #[error("descriptor {fd} is not open")]
    NotOpen { fd: RawFd },
    #[error("descriptor {fd} is not a Unix socket")]
    NotUnix { fd: RawFd },
    #[error("cannot wait for a front-end")]
    Accept(#[source] io::Error),
}

impl ListenError {
    /// Whether another command line would help.
    pub(crate) fn is_wrong_usage(&self) -> bool {
        matches!(self, Self::Nowhere | Self::TooLong { .. })
    }
}

/// Where front-ends come from.
pub(crate) enum Endpoint {
    /// One after the other.
    Listening(Listener),
    /// There is one, and there will be no other.
    Connected(UnixStream),
}

impl Endpoint {
    /// Opens what the options name, or else what socket activation passed.
    pub(crate) fn open(args: &Args) -> Result<Self, ListenError> {
        match (&args.socket_path, args.fd.or_else(activated)) {
            (Some(path), _) => Listener::bind(path).map(Self::Listening),
            (None, Some(fd)) => Self::inherit(fd),
            (None, None) => Err(ListenError::Nowhere),
        }
    }

    fn inherit(fd: RawFd) -> Result<Self, ListenError> {
        let socket = own(fd).ok_or(ListenError::NotOpen { fd })?;
        getsockname::<UnixAddr>(fd).map_err(|_other_kind| ListenError::NotUnix { fd })?;
        let listening = getsockopt(&socket, sockopt::AcceptConn)
            .map_err(|_other_kind| ListenError::NotUnix { fd })?;
        Ok(if listening {
            Self::Listening(Listener { socket: socket.into(), _file: None })
        } else {
            Self::Connected(socket.into())
        })
    }
}

/// A socket on which front-ends connect.
pub(crate) struct Listener {
    socket: UnixListener,
    /// Removed with the listener, where we made it.
    _file: Option<SocketFile>,
}

impl Listener {
    fn bind(path: &Path) -> Result<Self, ListenError> {
        let len = path.as_os_str().as_bytes().len();
        if len > PATH_MAX {
            return Err(ListenError::TooLong { path: path.into(), len });
        }
        remove_stale(path)?;
        let failed = |source| ListenError::Bind { path: path.into(), source };
        let socket = UnixListener::bind(path).map_err(failed)?;
        let file = SocketFile::of(path).map_err(failed)?;
        tracing::info!("listening on {}", path.display());
        Ok(Self { socket, _file: Some(file) })
    }

    /// The next front-end, or `None` when the process is to end.
    pub(crate) fn accept(&self, end: &EndRequest) -> Result<Option<UnixStream>, ListenError> {
        // A front-end may leave between its connect and our accept.
        self.socket.set_nonblocking(true).map_err(ListenError::Accept)?;
        loop {
            let mut fds = [
                PollFd::new(end.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(ListenError::Accept(errno.into())),
            }
            if end.is_raised() {
                return Ok(None);
            }
            match self.socket.accept() {
                Ok((stream, _unnamed)) => return Ok(Some(stream)),
                Err(error) if passes(&error) => {}
                Err(error) => return Err(ListenError::Accept(error)),
            }
        }
    }
}

fn passes(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted)
}

/// A socket's file, removed when dropped unless it is another's by then.
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
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
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let Ok(file) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !file.file_type().is_socket() {
        return Err(ListenError::NotASocket { path: path.into() });
    }
    let failed = |source| ListenError::Bind { path: path.into(), source };
    match UnixStream::connect(path) {
        Ok(other) => {
            let pid = getsockopt(&other, sockopt::PeerCredentials).map_or(0, |peer| peer.pid());
            Err(ListenError::Served { path: path.into(), pid })
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The descriptor that socket activation passes, if it passes one to this process.
fn activated() -> Option<RawFd> {
    let number = |name| env::var(name).ok()?.parse::<u32>().ok();
    let ours = number("LISTEN_PID")? == std::process::id() && number("LISTEN_FDS")? >= 1;
    ours.then_some(FIRST_ACTIVATED)
}

/// Takes over an inherited descriptor, and keeps it from children of ours.
fn own(fd: RawFd) -> Option<OwnedFd> {
    if fd < 0 {
        return None;
    }
    // SAFETY: nothing is dereferenced; the call fails when `fd` is not open.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: `fd` is open, and whoever started this process handed it over by its number.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    Some(fd)
}

#[cfg(test)]
#[path = "listen_test.rs"]
mod tests;
