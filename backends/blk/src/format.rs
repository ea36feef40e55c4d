//! Image formats: which one a file has, and that none is guessed where a guest could have written
//! what the guess is made from. It reads and writes no disk.

pub(crate) mod chain;
mod clusters;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
pub(crate) mod header;
mod host;
mod load;
pub(crate) mod qcow2;
mod refcounts;

use std::io;

use crate::file::ImageFile;

/// The format of an image, as the command line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The bytes of the file are those of the disk.
    Raw,
    /// QEMU's format, versions 2 and 3.
    Qcow2,
    /// What the file's first bytes say. Not for a file to which a guest has had raw access.
    Auto,
}

/// Whether `file` begins as a qcow2 image does.
pub(crate) fn looks_like_qcow2(file: &ImageFile) -> io::Result<bool> {
    let mut magic = [0; 4];
    file.read_or_zero(&mut magic, 0)?;
    Ok(magic == header::MAGIC)
}
