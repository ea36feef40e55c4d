//! The guest that demos, tests and benchmarks boot: Debian's stock cloud kernel, an initramfs and
//! a real Debian root, made from Debian packages and kept in `target/guest`:
//!
//! - `vmlinux`: the kernel as an ELF file
//! - `bzImage`: the same kernel as Debian ships it
//! - `initramfs.cpio.gz`: busybox; see `assets/guest-init` for what its command line takes
//! - `root.ext4`: the root file system; root logs in by itself on hvc0
//!
//! Boots nothing itself.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::debian::{Kernel, RootFs};
use crate::{cache, command, debian, initramfs, kernel, packages, workspace};

const INIT: &str = include_str!("../assets/guest-init");
const NET: &str = include_str!("../assets/guest-net");

/// What the initramfs can load.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "virtio_rng",
    "virtiofs",
    "vmw_vsock_virtio_transport",
    "virtio_scsi",
    "virtio_input",
];

/// The root's packages beyond `minbase`.
const PACKAGES: &[&str] = &[
    "dbus",
    "fio",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "kmod",
    "login",
    "pciutils",
    "procps",
    "systemd-sysv",
    "udev",
    "util-linux",
];

/// Units that a throw-away guest has no use for; each costs a process in a slow machine's boot.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "systemd-journal-flush.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-tmpfiles-clean.timer",
];

/// Lets root in without a password where a getty asks.
const AUTOLOGIN: &str = "[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --keep-baud 115200,57600,38400,9600 - $TERM
";

/// Gives the guest its address when its command line names one.
const NET_UNIT: &str = "[Unit]
Description=Fixed network address from the kernel's command line
ConditionKernelCommandLine=net
After=systemd-udev-settle.service systemd-modules-load.service
Before=getty.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/bin/guest-net

[Install]
WantedBy=multi-user.target
";

/// Shell commands run in the root before it becomes an image.
const FINISH: &str = "passwd -d root
systemctl enable guest-net.service
systemctl enable serial-getty@hvc0.service
rm -rf /var/lib/apt/lists/* /var/cache/apt/*
";

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
    let lists = [MODULES, PACKAGES, MASKED].map(|list| list.join(" ")).join("\n");
    format!("guest 1\n{lists}\n{INIT}\n{NET}\n{AUTOLOGIN}\n{NET_UNIT}\n{FINISH}")
}

fn build(folder: &Path) -> Result<()> {
    let kernel_folder = folder.join("kernel");
    fs::create_dir(&kernel_folder)?;
    let kernel = debian::kernel(&kernel_folder)?;
    fs::copy(&kernel.image, folder.join("bzImage")).context("cannot copy the kernel")?;
    kernel::extract(&kernel.image, &folder.join("vmlinux"))?;
    initramfs::pack(&kernel, INIT, MODULES, &folder.join("initramfs.cpio.gz"))?;

    let overlay = tempfile::tempdir().context("cannot make a temporary folder")?;
    lay(overlay.path(), &kernel).context("cannot lay out the guest's own files")?;
    debian::root_image(
        &RootFs { packages: PACKAGES, overlay: overlay.path(), finish: FINISH, size: "2G" },
        &folder.join("root.ext4"),
    )
}

/// The kernel as `ensure` unpacked it.
pub(crate) fn kernel(guest: &Path) -> Result<Kernel> {
    debian::unpacked_kernel(&guest.join("kernel"))
}

fn lay(overlay: &Path, kernel: &Kernel) -> Result<()> {
    fs::set_permissions(overlay, Permissions::from_mode(0o755))?;
    let text = |path: &str, content: &str, mode: u32| -> Result<()> {
        let path = overlay.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, content)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(())
    };
    text("etc/hostname", "guest\n", 0o644)?;
    text("etc/hosts", "127.0.0.1 localhost guest\n", 0o644)?;
    text("etc/fstab", "/dev/vda / ext4 defaults 0 0\n", 0o644)?;
    text("etc/motd", "", 0o644)?;
    text("usr/local/bin/guest-net", NET, 0o755)?;
    text("etc/systemd/system/guest-net.service", NET_UNIT, 0o644)?;
    text("etc/systemd/system/serial-getty@hvc0.service.d/autologin.conf", AUTOLOGIN, 0o644)?;
    for unit in MASKED {
        symlink("/dev/null", overlay.join("etc/systemd/system").join(unit))?;
    }
    copy_modules(kernel, overlay)
}

/// Copies all of the kernel's modules below `overlay`.
pub(crate) fn copy_modules(kernel: &Kernel, overlay: &Path) -> Result<()> {
    let home = overlay.join("usr/lib/modules");
    fs::create_dir_all(&home)?;
    command::quietly(
        std::process::Command::new("cp").arg("--recursive").arg(&kernel.modules).arg(home),
    )
}
