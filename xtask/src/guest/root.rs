//! The guest's root file system: a real Debian that boots in seconds where a machine is slow.
//! What a throw-away guest has no use for is switched off, nothing that Debian ships is changed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};

use crate::debian::{self, Kernel, RootFs};

/// The packages beyond `minbase`.
#[rustfmt::skip]
const PACKAGES: &[&str] = &[
    // systemd-logind heeds the power button, and does not start without a system bus.
    "dbus",
    "ethtool", "fio", "iperf3", "iproute2", "iputils-ping", "kmod", "login", "pciutils", "procps",
    "qemu-guest-agent", "systemd-sysv", "udev", "udhcpc", "util-linux", "xfsprogs",
];

/// Units that are switched off: each costs a process or more in a slow machine's boot.
#[rustfmt::skip]
const MASKED: &[&str] = &[
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "systemd-tmpfiles-clean.timer",
    "getty@tty1.service", "kmod-static-nodes.service", "modprobe@.service",
    "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount",
    "systemd-journal-flush.service", "systemd-modules-load.service", "systemd-pstore.service",
    "systemd-random-seed.service", "systemd-sysctl.service", "systemd-sysusers.service",
    "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
    "sys-fs-fuse-connections.mount", "sys-kernel-config.mount", "sys-kernel-tracing.mount",
    "dev-hugepages.mount", "dev-mqueue.mount",
];

/// Files of our own: path, mode, content.
const FILES: &[(&str, u32, &str)] = &[
    ("etc/hostname", 0o644, "guest\n"),
    ("etc/hosts", 0o644, "127.0.0.1 localhost guest\n"),
    // The initramfs mounts the root as it shall be.
    ("etc/fstab", 0o644, ""),
    ("etc/motd", 0o644, ""),
    ("usr/local/bin/guest-net", 0o755, include_str!("../../assets/guest-net")),
    // Gives the guest its address when its command line says which, or that it gets one. udev
    // renames the device as it comes to it at boot: who takes it by its name before that may find
    // none of that name.
    (
        "etc/systemd/system/guest-net.service",
        0o644,
        "[Unit]
Description=Network address as the kernel's command line says
ConditionKernelCommandLine=net
DefaultDependencies=no
After=systemd-udev-trigger.service
Wants=getty-pre.target
Before=getty-pre.target getty.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStartPre=-udevadm settle
ExecStart=/usr/local/bin/guest-net

[Install]
WantedBy=multi-user.target
",
    ),
    // Lets root in without a password on the virtio console.
    (
        "etc/systemd/system/serial-getty@hvc0.service.d/autologin.conf",
        0o644,
        "[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200,57600,38400,9600 - $TERM
",
    ),
    // At boot udev looks at the devices that a virtual machine has (its power button is ACPI's),
    // not at a hundred terminals.
    (
        "etc/systemd/system/systemd-udev-trigger.service.d/virtual.conf",
        0o644,
        "[Service]
ExecStart=
ExecStart=-udevadm trigger --action=add --subsystem-match=virtio --subsystem-match=virtio-ports --subsystem-match=acpi --subsystem-match=block --subsystem-match=net --subsystem-match=input
ExecStart=-udevadm trigger --action=add --subsystem-match=tty --sysname-match=hvc* --sysname-match=ttyS0
",
    ),
    ("etc/systemd/journald.conf.d/volatile.conf", 0o644, "[Journal]\nStorage=volatile\n"),
];

/// Shell commands run in the root before it becomes an image. With a machine id a boot is not the
/// first one, which would set up every unit anew.
const FINISH: &str = "passwd -d root
systemd-machine-id-setup
systemctl set-default multi-user.target
systemctl enable guest-net.service serial-getty@hvc0.service
rm -rf /var/lib/apt/lists/* /var/cache/apt/*
";

/// Everything that decides what the root is.
pub(super) fn recipe() -> String {
    format!("{PACKAGES:?}\n{MASKED:?}\n{FILES:?}\n{FINISH}")
}

/// Makes the image.
pub(super) fn make(kernel: &Kernel, image: &Path) -> Result<()> {
    let overlay = tempfile::tempdir().context("cannot make a temporary folder")?;
    lay(overlay.path(), kernel).context("cannot lay out the guest's own files")?;
    debian::root_image(
        &RootFs { packages: PACKAGES, overlay: overlay.path(), finish: FINISH, size: "2G" },
        image,
    )
}

fn lay(overlay: &Path, kernel: &Kernel) -> Result<()> {
    fs::set_permissions(overlay, Permissions::from_mode(0o755))?;
    for (path, mode, content) in FILES {
        let path = overlay.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, content)?;
        fs::set_permissions(&path, Permissions::from_mode(*mode))?;
    }
    for unit in MASKED {
        symlink("/dev/null", overlay.join("etc/systemd/system").join(unit))?;
    }
    kernel.copy_modules(overlay)
}
