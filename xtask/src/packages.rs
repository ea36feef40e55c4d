//! The Debian packages that the tasks stand on: finds the missing ones and installs them when it
//! may, otherwise says the exact command. Installs nothing but these.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command;

/// What a fresh Debian machine with a Rust toolchain lacks, each with the reason we want it.
const PACKAGES: &[&str] = &[
    "acpica-tools",       // iasl: ACPI tables parsed back by somebody else
    "busybox-static",     // the initramfs' programs
    "cpio",               // initramfs archives
    "e2fsprogs",          // mke2fs: images made without a mount
    "fio",                // the limit in bench blk
    "g++",                // fuzzing, whose engine is C++
    "iperf3",             // network tests
    "iproute2",           // TAP devices
    "iputils-ping",       // round trips in bench traffic
    "kmod",               // depmod
    "libcap-ng-dev",      // virtiofsd, built as a peer
    "libseccomp-dev",     // virtiofsd, built as a peer
    "lz4",                // the kernel's payload
    "mmdebstrap",         // root file systems
    "passt",              // user-mode network
    "procps",             // ps, for the demo
    "qemu-system-common", // qemu-storage-daemon
    "qemu-system-x86",    // the lab
    "qemu-utils",         // qemu-img: images made and checked by somebody else
    "tmux",               // a terminal that somebody else made, for the console
    "util-linux",         // setpriv, setsid
    "zstd",               // the kernel's payload, with other kernels
];

/// What DPDK's driver comes in, for those tasks that attach it: it is large.
pub(crate) const DPDK: &[&str] = &["dpdk-dev"];

/// What else it takes to make root file systems without being root.
const UNPRIVILEGED: &[&str] = &["fakeroot", "uidmap"];

/// Returns when every package is installed.
pub(crate) fn ensure() -> Result<()> {
    ensure_with(&[])
}

/// As [`ensure`], with more packages.
pub(crate) fn ensure_with(more: &[&str]) -> Result<()> {
    if !command::exists("dpkg-query") {
        bail!("this task sets itself up from Debian packages, and this machine has no dpkg");
    }
    let root = nix::unistd::geteuid().is_root();
    let mut wanted = [PACKAGES, more].concat();
    if !root {
        wanted.extend(UNPRIVILEGED);
    }
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    if !root {
        bail!(
            "packages are missing; install them and run this again:\n    \
             sudo apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
    }
    eprintln!("installing {}", missing.join(" "));
    // The lists of a fresh machine are empty, and old ones name files that are gone: fetch new
    // ones only when what is there does not serve.
    if install(&missing).is_err() {
        update()?;
        install(&missing)?;
    }
    Ok(())
}

/// Makes sure that apt knows its packages, which a fresh image may not.
pub(crate) fn ensure_lists() -> Result<()> {
    let known = Command::new("apt-cache")
        .args(["show", "--no-all-versions", "linux-image-cloud-amd64"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot start apt-cache")?;
    if known.success() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("apt has no package lists; run `sudo apt-get update` and then this again");
    }
    update()
}

fn missing<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    // dpkg-query fails when it has never heard of one of them, and still lists the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .stderr(Stdio::null())
        .output()
        .context("cannot start dpkg-query")?;
    let listed = String::from_utf8_lossy(&output.stdout);
    let installed: Vec<_> =
        listed.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    Ok(wanted.iter().filter(|name| !installed.contains(*name)).copied().collect())
}

fn install(packages: &[&str]) -> Result<()> {
    command::quietly(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(packages),
    )
}

fn update() -> Result<()> {
    command::quietly(Command::new("apt-get").args(["update", "-q"]))
}
