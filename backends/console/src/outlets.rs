//! The four outlets: this process's terminal, a new pseudo-terminal, a socket and a file.

mod file;
mod pty;
mod socket;
mod stdio;

use crate::options::To;
use crate::outlet::{OpenError, Outlet};

/// Opens `to`, the way out of `what`.
pub(crate) fn open(to: &To, what: &str) -> Result<Box<dyn Outlet>, OpenError> {
    Ok(match to {
        To::Stdio => Box::new(stdio::Stdio::open()?),
        To::Pty(link) => Box::new(pty::Pty::open(link.as_deref(), what)?),
        To::Unix(path) => Box::new(socket::Socket::open(path)?),
        To::File(path) => Box::new(file::LogFile::open(path)?),
    })
}
