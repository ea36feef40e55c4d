//! The socket to the front-end: made, inherited or activated, and cleaned up behind us. What is
//! said over it is the session's.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use atoll_unix_socket::{Access, SocketError};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{UnixAddr, getsockname, getsockopt, sockopt};

use crate::args::Args;
use crate::sandbox::{OwnName, bind};
use crate::signals::EndRequest;

/// There is no socket to the front-end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("one of --socket-path=PATH and --fd=N says where the front-end is; neither is given")]
    Nowhere,
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("socket activation passes {count} sockets, and one is served; give each its own unit")]
    Activated { count: usize },
    #[error("what LISTEN_PID and LISTEN_FDS say of socket activation is not so")]
    Activation(#[source] io::Error),
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
        matches!(
            self,
            Self::Nowhere | Self::Activated { .. } | Self::Socket(SocketError::TooLong { .. })
        )
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
        match (&args.socket_path, args.fd) {
            (Some(path), _) => Ok(Self::Listening(Listener::bind(path, Access::Umask)?)),
            (None, Some(fd)) => Self::inherit(fd),
            (None, None) => Self::inherit(activated()?.ok_or(ListenError::Nowhere)?),
        }
    }

    /// Opens what the options name for control, if they do.
    pub(crate) fn control(args: &Args) -> Result<Option<Self>, ListenError> {
        match (&args.control_socket, args.control_fd) {
            (Some(path), _) => Ok(Some(Self::Listening(Listener::bind(path, Access::Owner)?))),
            (None, Some(fd)) => Self::inherit(fd).map(Some),
            (None, None) => Ok(None),
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
    _file: Option<OwnName>,
}

impl Listener {
    fn bind(path: &Path, access: Access) -> Result<Self, SocketError> {
        let (socket, file) = bind(path, access)?;
        tracing::info!("listening on {}", path.display());
        Ok(Self { socket, _file: Some(file) })
    }

    /// The socket, and its file where we made it.
    pub(crate) fn into_parts(self) -> (UnixListener, Option<OwnName>) {
        (self.socket, self._file)
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
            if let Some(stream) = accept_one(&self.socket).map_err(ListenError::Accept)? {
                return Ok(Some(stream));
            }
        }
    }
}

/// Who waits at a socket that does not block; `None` when nobody does.
pub(crate) fn accept_one(listener: &UnixListener) -> io::Result<Option<UnixStream>> {
    match listener.accept() {
        Ok((stream, _unnamed)) => Ok(Some(stream)),
        Err(error) if passes(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn passes(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted)
}

/// The descriptor that socket activation passes, if it passes one to this process.
fn activated() -> Result<Option<RawFd>, ListenError> {
    let mut passed = sd_notify::listen_fds().map_err(ListenError::Activation)?;
    match passed.len() {
        0 | 1 => Ok(passed.next()),
        count => Err(ListenError::Activated { count }),
    }
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
