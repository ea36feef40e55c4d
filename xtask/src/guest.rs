//! The guest that demos, tests and benchmarks boot: Debian's stock cloud kernel, an initramfs and
//! a real Debian root, made from Debian packages and kept in `target/guest`:
//!
//! - `vmlinux`: the kernel as an ELF file
//! - `bzImage`: the same kernel as Debian ships it
//! - `initramfs.cpio.gz`: busybox; see `assets/guest-init` for what its command line takes
//! - `root.ext4`: the root file system; root logs in by itself on hvc0
//!
//! Boots nothing itself.

mod root;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::debian::Kernel;
use crate::{cache, initramfs, kernel, packages, workspace};

/// The folder, beside the guest's files, of the kernel's own.
const KERNEL: &str = "kernel";

const INIT: &str = include_str!("../assets/guest-init");

/// What the initramfs can load.
#[rustfmt::skip]
const MODULES: &[&str] = &[
    "virtio_pci", "virtio_mmio", "virtio_blk", "virtio_console", "virtio_net", "virtio_rng",
    "virtio_scsi", "virtio_input", "virtiofs", "vmw_vsock_virtio_transport",
];

/// Returns the folder of guest files, made when it is not there yet or its recipe has changed.
pub(crate) fn ensure() -> Result<PathBuf> {
    cache::folder(&workspace::target(), "guest", &recipe(), |folder| {
        eprintln!("making the guest from Debian packages (once, about a minute)");
        packages::ensure_lists()?;
        build(folder)
    })
}

/// Everything that decides what the files are. Raise the number when the way they are made
/// changes but none of these does.
pub(crate) fn recipe() -> String {
    format!("guest 2\n{MODULES:?}\n{INIT}\n{}", root::recipe())
}

/// The kernel as `ensure` unpacked it.
pub(crate) fn kernel(guest: &Path) -> Result<Kernel> {
    Kernel::unpacked(&guest.join(KERNEL))
}

fn build(folder: &Path) -> Result<()> {
    let unpacked = folder.join(KERNEL);
    fs::create_dir(&unpacked)?;
    let kernel = Kernel::fetch(&unpacked)?;
    fs::copy(&kernel.image, folder.join("bzImage")).context("cannot copy the kernel")?;
    kernel::extract(&kernel.image, &folder.join("vmlinux"))?;
    initramfs::pack(&kernel, INIT, MODULES, &folder.join("initramfs.cpio.gz"))?;
    root::make(&kernel, &folder.join("root.ext4"))
}
