//! The connection to a console: its socket, or the far end of its pseudo-terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use atoll_terminal::Size;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// A console that somebody is attached to. Never blocks.
pub(super) enum Link {
    Socket(UnixStream),
    Terminal { terminal: File, path: PathBuf },
}

impl Link {
    pub(super) fn to_socket(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        Ok(Self::Socket(stream))
    }

    pub(super) fn to_terminal(path: &Path) -> io::Result<Self> {
        Ok(Self::Terminal { terminal: open(path)?, path: path.into() })
    }

    pub(super) fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(stream) => stream.read(bytes),
            Self::Terminal { terminal, .. } => terminal.read(bytes),
        }
    }

    pub(super) fn write(&mut self, keys: &[u8]) -> io::Result<usize> {
        match self {
            Self::Socket(stream) => stream.write(keys),
            Self::Terminal { terminal, .. } => terminal.write(keys),
        }
    }

    /// Tells the console how large the window of `user`, a terminal, is. False when it has to be told
    /// later.
    pub(super) fn tell_window(&mut self, user: BorrowedFd<'_>) -> bool {
        match self {
            // One byte with the terminal itself, which the console looks at.
            Self::Socket(stream) => match stream.send_with_fd(&[0_u8][..], user.as_raw_fd()) {
                Ok(_sent) => true,
                Err(error) => error.errno() != libc::EAGAIN,
            },
            Self::Terminal { terminal, path } => {
                if let Some(size) = Size::of(user)
                    && size.set(terminal.as_fd()).is_ok()
                {
                    // The console's process is told when its terminal is opened, not of its size.
                    let _looked_at = open(path);
                }
                true
            }
        }
    }

    /// Wants no more. What is on its way already can still be read, and nobody else gets it.
    pub(super) fn leave(&mut self) {
        if let Self::Socket(stream) = self {
            // Fails only when the other end has left.
            let _left = stream.shutdown(Shutdown::Read);
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(stream) => stream.as_fd(),
            Self::Terminal { terminal, .. } => terminal.as_fd(),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}
