//! The four outlets: this process's terminal, a new pseudo-terminal, a socket and a file.

mod file;
mod pty;
mod socket;
mod stdio;

use crate::Options;
use crate::outlet::{OpenError, Outlet};

/// Opens the one that the command line names.
pub(crate) fn open(options: &Options) -> Result<Box<dyn Outlet>, OpenError> {
    if let Some(link) = &options.pty {
        return Ok(Box::new(pty::Pty::open(link.as_deref())?));
    }
    if let Some(path) = &options.unix {
        return Ok(Box::new(socket::Socket::open(path)?));
    }
    if let Some(path) = &options.file {
        return Ok(Box::new(file::LogFile::open(path)?));
    }
    Ok(Box::new(stdio::Stdio::open()?))
}
