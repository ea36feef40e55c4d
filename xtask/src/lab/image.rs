//! What the lab boots from: Debian's stock cloud kernel, its initramfs, a Debian root with the
//! tools of the trade, kept in `target/lab`, and the guest's files on a disk, kept in
//! `target/lab-guest`. Starts nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian::{Kernel, RootFs};
use crate::{cache, command, debian, guest, initramfs, workspace};

const INITRD: &str = include_str!("../../assets/lab-initrd");
const INIT: &str = include_str!("../../assets/lab-init");

/// What the lab's initramfs needs to find its root; the root has all the other modules.
const MODULES: &[&str] = &["virtio_pci", "virtio_blk", "virtio_console"];

/// The root's packages beyond `minbase`: other VMMs and backends, and what tests look with.
#[rustfmt::skip]
const PACKAGES: &[&str] = &[
    "busybox-static", "e2fsprogs", "iperf3", "iproute2", "iputils-ping", "kmod", "libcap-ng0",
    "libseccomp2", "passt", "pciutils", "procps", "qemu-system-common", "qemu-system-x86", "socat",
    "strace", "systemd", "util-linux",
];

/// Shell commands run in the root before it becomes an image.
const FINISH: &str = "rm -rf /var/lib/apt/lists/* /var/cache/apt/*
mkdir -p /guest /run-disk
";

/// The files of the lab.
pub(super) struct Image {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    pub(super) root: PathBuf,
    pub(super) guest: PathBuf,
}

/// Returns the lab's files, made when they are not there yet or their recipe has changed.
pub(super) fn ensure() -> Result<Image> {
    let guest = guest::ensure()?;
    let kernel = guest::kernel(&guest)?;
    // The lab boots the guest's kernel, so its modules are that kernel's.
    let recipe =
        format!("lab 2\n{}\n{MODULES:?}\n{PACKAGES:?}\n{INITRD}\n{INIT}\n{FINISH}", kernel.release);
    let lab = cache::folder(&workspace::target(), "lab", &recipe, |folder| {
        eprintln!("making the lab from Debian packages (once, about a minute)");
        build(folder, &kernel)
    })?;
    let recipe = format!("disk 1\n{}\n{}", kernel.release, guest::recipe());
    let disk = cache::folder(&workspace::target(), "lab-guest", &recipe, |folder| {
        guest_disk(folder, &guest)
    })?;
    Ok(Image {
        kernel: guest.join("vmlinux"),
        initramfs: lab.join("initramfs.cpio.gz"),
        root: lab.join("root.ext4"),
        guest: disk.join("guest.ext4"),
    })
}

fn build(folder: &Path, kernel: &Kernel) -> Result<()> {
    initramfs::pack(kernel, INITRD, MODULES, &folder.join("initramfs.cpio.gz"))?;

    let overlay = tempfile::tempdir().context("cannot make a temporary folder")?;
    fs::set_permissions(overlay.path(), Permissions::from_mode(0o755))?;
    let init = overlay.path().join("lab-init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, Permissions::from_mode(0o755))?;
    kernel.copy_modules(overlay.path())?;
    debian::root_image(
        &RootFs { packages: PACKAGES, overlay: overlay.path(), finish: FINISH, size: "16G" },
        &folder.join("root.ext4"),
    )
}

/// A disk with the guest's files, and room for copies of them.
fn guest_disk(folder: &Path, guest: &Path) -> Result<()> {
    let staged = tempfile::tempdir_in(folder).context("cannot make a temporary folder")?;
    fs::set_permissions(staged.path(), Permissions::from_mode(0o755))?;
    for name in ["vmlinux", "bzImage", "initramfs.cpio.gz", "root.ext4"] {
        // Holes stay holes.
        command::quietly(
            Command::new("cp")
                .args(["--sparse=always", "--reflink=auto"])
                .arg(guest.join(name))
                .arg(staged.path()),
        )?;
    }
    debian::image_of(staged.path(), "guest", 16 << 30, &folder.join("guest.ext4"))
}
