//! Where a console's bytes go and come from, as the line sees it.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use atoll_unix_socket::SocketError;
use nix::errno::Errno;

use crate::window::Size;

/// The number of a reader, which no other has before or after it.
pub(crate) type ReaderId = u64;

/// Something that people and programs attach to. None of its descriptors block.
pub(crate) trait Outlet: Send {
    /// Where output goes: everybody who reads.
    fn readers(&self) -> Vec<(ReaderId, BorrowedFd<'_>)>;

    /// Where keys come from, while there may be any, and whose they are. One may type at a time.
    fn input(&self) -> Option<(ReaderId, BorrowedFd<'_>)>;

    /// Takes what was typed; `None` at the end of it. Called when there is [`input`](Self::input).
    fn read(&mut self, keys: &mut [u8]) -> nix::Result<Option<usize>>;

    /// What becomes readable when [`check`](Self::check) has something to do; may be none.
    fn events(&self) -> Option<BorrowedFd<'_>>;

    /// Looks for somebody who came, and for a window that changed.
    fn check(&mut self);

    /// Reading came to an end: no more keys from whoever may type.
    fn input_ended(&mut self);

    /// Writing failed, or the other end hung up: this reader has left.
    fn reader_left(&mut self, reader: ReaderId, reason: &str);

    /// The size of the window; `None` for what has none.
    fn window(&self) -> Option<Size>;

    /// The name of the pseudo-terminal, for what is one.
    fn terminal(&self) -> Option<PathBuf> {
        None
    }
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
    /// The file is a pipe without a reader.
    #[error("{path} is a pipe that nobody reads; start its reader first, or name a file")]
    NobodyReads {
        /// The pipe.
        path: PathBuf,
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
    /// Two ports of one name.
    #[error("two ports are named {name}; give each --port a name of its own")]
    SameName {
        /// The name.
        name: String,
    },
    /// More ports than there can be.
    #[error("{count} named ports are too many; a console has at most {most}")]
    TooManyPorts {
        /// How many were asked for.
        count: usize,
        /// How many there can be.
        most: usize,
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
