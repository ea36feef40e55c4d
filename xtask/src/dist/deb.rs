//! The tree as a Debian package: what goes around it. Lays nothing out itself.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// Run when the package is in place: the user and the folder of images exist, and systemd
/// knows the units. Where folders can't be made now, as in a root that is still being built, they
/// are at the next boot.
const POSTINST: &str = "#!/bin/sh
set -e
if [ \"$1\" = configure ]; then
    if command -v systemd-sysusers > /dev/null; then systemd-sysusers atoll.conf; fi
    if command -v systemd-tmpfiles > /dev/null; then systemd-tmpfiles --create atoll.conf || true; fi
    if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
fi
";

/// Run when the package is gone.
const POSTRM: &str = "#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
";

/// Makes `output/atoll_VERSION_ARCHITECTURE.deb` of the tree.
pub(super) fn pack(tree: &Path, output: &Path) -> Result<PathBuf> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let staged = scratch.path().join("atoll");
    command::quietly(Command::new("cp").args(["--archive"]).arg(tree).arg(&staged))?;
    fs::set_permissions(&staged, Permissions::from_mode(0o755))?;
    let control = staged.join("DEBIAN");
    fs::create_dir(&control)?;
    let architecture = command::read(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    fs::write(control.join("control"), fields(architecture, size(tree)?)?)?;
    for (name, script) in [("postinst", POSTINST), ("postrm", POSTRM)] {
        fs::write(control.join(name), script)?;
        fs::set_permissions(control.join(name), Permissions::from_mode(0o755))?;
    }
    let package = output.join(format!("atoll_{}_{architecture}.deb", env!("CARGO_PKG_VERSION")));
    command::quietly(
        Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&staged).arg(&package),
    )?;
    Ok(package)
}

fn fields(architecture: &str, kib: u64) -> Result<String> {
    // Built here, the programs want this machine's C library or a newer one.
    let libc = command::read(Command::new("dpkg-query").args([
        "--show",
        "--showformat=${Version}",
        "libc6",
    ]))?;
    let libc = libc.split('-').next().unwrap_or(&libc);
    Ok(format!(
        "Package: atoll
Version: {version}
Architecture: {architecture}
Maintainer: The Atoll developers <atoll@localhost>
Installed-Size: {kib}
Depends: libc6 (>= {libc}), libgcc-s1
Suggests: qemu-utils, virtiofsd
Section: admin
Priority: optional
Description: KVM virtual machine monitor whose devices are processes of their own
 Every virtio device is a separate vhost-user process, which may die, be
 restarted by systemd or be replaced while the guest runs.
",
        version = env!("CARGO_PKG_VERSION"),
    ))
}

fn size(tree: &Path) -> Result<u64> {
    let used = command::read(Command::new("du").args(["-sk", "--apparent-size"]).arg(tree))?;
    used.split_whitespace().next().and_then(|size| size.parse().ok()).context("du printed no size")
}
