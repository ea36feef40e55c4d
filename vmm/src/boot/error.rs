//! Why a guest can't be booted, in sentences that name the file.

use std::io;
use std::path::PathBuf;

use vm_memory::GuestMemoryError;

use crate::config::Size;

/// Why a guest can't be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// No such file.
    #[error("there is no {what} at {}", path.display())]
    Missing {
        /// Kernel or initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A directory, a device, a socket.
    #[error("the {what} {} is not a regular file", path.display())]
    NotAFile {
        /// Kernel or initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// It can't be opened or read.
    #[error("can't read the {what} {}", path.display())]
    Read {
        /// Kernel or initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Neither of the two formats.
    #[error(
        "{} is not a kernel; it must be an x86-64 ELF vmlinux with a PVH note, or a bzImage",
        path.display()
    )]
    NotAKernel {
        /// The file.
        path: PathBuf,
    },
    /// Its own headers speak of more than there is.
    #[error(
        "the kernel {} is truncated: its headers tell of {needed} bytes and it has {size}",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What the headers tell of.
        needed: u64,
        /// What there is.
        size: u64,
    },
    /// An ELF file for something else.
    #[error("{} is an ELF file, but not an x86-64 executable", path.display())]
    OtherElf {
        /// The file.
        path: PathBuf,
    },
    /// Its headers make no sense.
    #[error("the ELF kernel {} is damaged: {what}", path.display())]
    DamagedElf {
        /// The file.
        path: PathBuf,
        /// What makes no sense.
        what: &'static str,
    },
    /// No way in.
    #[error(
        "the ELF kernel {} has no PVH entry point; build it with CONFIG_PVH=y, or give its bzImage",
        path.display()
    )]
    NoPvhNote {
        /// The file.
        path: PathBuf,
    },
    /// No 64-bit way in.
    #[error(
        "the bzImage {} has no 64-bit entry point; it is of a 32-bit or very old kernel",
        path.display()
    )]
    No64BitEntry {
        /// The file.
        path: PathBuf,
    },
    /// Below the first mebibyte, or past the end of the world.
    #[error(
        "the kernel {} wants to be at {start:#x} with {len} bytes, where no kernel can be",
        path.display()
    )]
    BadPlace {
        /// The file.
        path: PathBuf,
        /// Where it wants to be.
        start: u64,
        /// How much of it.
        len: u64,
    },
    /// More memory needed.
    #[error(
        "the kernel {} is too large for {} of memory: it needs the memory up to {needed:#x}; \
         give more with --memory", path.display(), Size(*.size)
    )]
    KernelTooLarge {
        /// The file.
        path: PathBuf,
        /// Where it would end.
        needed: u64,
        /// How much memory there is.
        size: u64,
    },
    /// More memory needed.
    #[error(
        "the initrd {} with {size} bytes is too large: beside the kernel there is room for {room}; \
         give more with --memory", path.display()
    )]
    InitrdTooLarge {
        /// The file.
        path: PathBuf,
        /// How long it is.
        size: u64,
        /// How much room there is.
        room: u64,
    },
    /// Nothing in it.
    #[error("the initrd {} is empty", path.display())]
    InitrdEmpty {
        /// The file.
        path: PathBuf,
    },
    /// More than the kernel takes.
    #[error("the command line has {len} bytes, and this kernel takes at most {limit}")]
    CommandLineTooLong {
        /// How long it is.
        len: usize,
        /// The most there may be.
        limit: usize,
    },
    /// It would end there.
    #[error("the command line has a zero byte in it")]
    CommandLineNul,
    /// Guest memory lacks what every guest's has.
    #[error("can't write to guest memory")]
    Memory(#[from] GuestMemoryError),
}
