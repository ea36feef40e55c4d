//! Where a console's bytes go and come from, as the line's thread sees it.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use atoll_unix_socket::SocketError;
use nix::errno::Errno;

use crate::window::Size;

/// Something that a person or a program attaches to. None of its descriptors block.
pub(crate) trait Outlet: Send {
    /// Where output goes, while somebody takes it.
    fn output(&self) -> Option<BorrowedFd<'_>>;

    /// Where keys come from, while there may be any.
    fn input(&self) -> Option<BorrowedFd<'_>>;

    /// What becomes readable when [`check`](Self::check) has something to do; may be none.
    fn events(&self) -> Option<BorrowedFd<'_>>;

    /// Looks for somebody who came, and for a window that changed.
    fn check(&mut self);

    /// Reading came to an end: no more keys from whoever is attached.
    fn input_ended(&mut self);

    /// Writing failed, or the other end hung up: whoever was attached has left.
    fn output_failed(&mut self, reason: &str);

    /// The size of the window; `None` for what has none.
    fn window(&self) -> Option<Size>;
}

/// Why there is no console.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file can't be opened.
    #[error("cannot open {path} to add the console's output to it")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket can't be bound.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The name for the pseudo-terminal is taken.
    #[error("{path} exists and is not a symbolic link; give another --pty=LINK or remove it")]
    NotALink {
        /// The name.
        path: PathBuf,
    },
    /// The name for the pseudo-terminal can't be made.
    #[error("cannot make {path} a symbolic link to the pseudo-terminal")]
    Link {
        /// The name.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: Errno,
    },
    /// The line's thread can't be started.
    #[error("cannot start the console's thread")]
    Thread {
        /// Why.
        source: io::Error,
    },
}
