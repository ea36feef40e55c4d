//! Boot: a kernel, an initial RAM disk and a command line put into guest memory.
//!
//! The kernel's format is found by looking at it. What the first vCPU does with all this is the
//! architecture's business, and the ACPI tables are written elsewhere.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress};

use crate::arch::{self, EntryPoint, Protocol, layout};
use crate::memory::GuestRam;

mod bzimage;
mod elf;
mod error;
mod image;
mod initrd;
mod memory_map;
mod pvh;
mod zero_page;

pub use error::BootError;

use bzimage::BzImage;
use elf::Elf;
use image::Image;

/// The files that a guest boots from, open: a reboot boots what the first boot did, even if they
/// were replaced meanwhile.
#[derive(Debug)]
pub struct BootFiles {
    kernel: Image,
    initrd: Option<Image>,
}

/// Everything that differs between two boots of the same files.
#[derive(Clone, Copy, Debug)]
pub struct BootSpec<'a> {
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Where the ACPI tables begin.
    pub rsdp: u64,
}

/// A kernel whose headers were read and found good.
enum Kernel {
    Elf(Elf),
    BzImage(Box<BzImage>),
}

/// What is in memory by now, as the boot protocols tell it to the kernel.
struct Loaded<'a> {
    spec: BootSpec<'a>,
    /// Where it is and how long, zero without one.
    initrd: (u64, u64),
}

impl BootFiles {
    /// Opens the files.
    ///
    /// # Errors
    /// [`BootError`] naming the file.
    pub fn open(kernel: &Path, initrd: Option<&Path>) -> Result<Self, BootError> {
        Ok(Self {
            kernel: Image::open("kernel", kernel)?,
            initrd: initrd.map(|path| Image::open("initrd", path)).transpose()?,
        })
    }

    /// Puts everything into `ram`, which is empty, and says where the first vCPU starts.
    ///
    /// # Errors
    /// [`BootError`] naming the file and what is wrong with it.
    pub fn load(&self, ram: &GuestRam, spec: &BootSpec<'_>) -> Result<EntryPoint, BootError> {
        let kernel = self.kernel()?;
        kernel.check_command_line(spec.command_line)?;
        let kernel_end = kernel.load(&self.kernel, ram)?;
        let initrd = match &self.initrd {
            Some(image) => initrd::load(image, ram, kernel_end, kernel.initrd_end(ram))?,
            None => (0, 0),
        };
        write_command_line(ram, spec.command_line)?;
        kernel.write_boot_data(ram, &Loaded { spec: *spec, initrd })
    }

    /// Finds out what the kernel is.
    fn kernel(&self) -> Result<Kernel, BootError> {
        if elf::is_elf(&self.kernel)? {
            return Elf::parse(&self.kernel).map(Kernel::Elf);
        }
        match BzImage::parse(&self.kernel)? {
            Some(image) => Ok(Kernel::BzImage(Box::new(image))),
            None => Err(BootError::NotAKernel { path: self.kernel.path().into() }),
        }
    }
}

impl Kernel {
    fn check_command_line(&self, command_line: &str) -> Result<(), BootError> {
        let limit = match self {
            Self::Elf(_) => elf::COMMAND_LINE_LIMIT,
            Self::BzImage(image) => image.command_line_limit(),
        };
        let len = command_line.len();
        if len > limit {
            return Err(BootError::CommandLineTooLong { len, limit });
        }
        if command_line.contains('\0') {
            return Err(BootError::CommandLineNul);
        }
        Ok(())
    }

    /// Copies the kernel to where it wants to be, and says where the memory that it needs ends.
    fn load(&self, image: &Image, ram: &GuestRam) -> Result<u64, BootError> {
        match self {
            Self::Elf(elf) => elf.load(image, ram),
            Self::BzImage(kernel) => kernel.load(image, ram),
        }
    }

    /// Where an initial RAM disk must end.
    fn initrd_end(&self, ram: &GuestRam) -> u64 {
        match self {
            Self::Elf(_) => low_ram_end(ram),
            Self::BzImage(image) => low_ram_end(ram).min(image.initrd_end()),
        }
    }

    fn write_boot_data(&self, ram: &GuestRam, loaded: &Loaded) -> Result<EntryPoint, BootError> {
        let (protocol, address) = match self {
            Self::Elf(elf) => (Protocol::Pvh, elf.entry()),
            Self::BzImage(kernel) => (Protocol::Linux64, kernel.entry()),
        };
        arch::write_boot_tables(ram.memory(), protocol)?;
        let boot_data = match self {
            Self::Elf(_) => pvh::write(ram, loaded)?,
            Self::BzImage(kernel) => zero_page::write(ram, kernel, loaded)?,
        };
        Ok(EntryPoint { protocol, address, boot_data })
    }
}

/// Where memory below the hole ends.
fn low_ram_end(ram: &GuestRam) -> u64 {
    ram.size().min(layout::HOLE_START)
}

/// As it is, with a zero behind it.
fn write_command_line(ram: &GuestRam, command_line: &str) -> Result<(), BootError> {
    let mut bytes = command_line.as_bytes().to_vec();
    bytes.push(0);
    Ok(ram.memory().write_slice(&bytes, GuestAddress(layout::COMMAND_LINE))?)
}

/// That `[start, start + len)` is memory that a kernel may have, or why not.
fn check_place(image: &Image, ram: &GuestRam, start: u64, len: u64) -> Result<u64, BootError> {
    let path = || -> PathBuf { image.path().into() };
    let end = start.checked_add(len).filter(|_| start >= layout::HIGH_RAM_START);
    let end = end.ok_or_else(|| BootError::BadPlace { path: path(), start, len })?;
    if end > low_ram_end(ram) {
        return Err(BootError::KernelTooLarge { path: path(), needed: end, size: ram.size() });
    }
    Ok(end)
}

#[cfg(test)]
#[path = "boot_test.rs"]
mod tests;
