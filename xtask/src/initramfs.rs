//! Packs an initramfs: busybox, one init script and the modules it loads. What the init does is
//! the script's business.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::debian::Kernel;

/// Programs of busybox that the scripts use.
const APPLETS: &[&str] = &[
    "awk",
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dmesg",
    "echo",
    "env",
    "free",
    "grep",
    "head",
    "hexdump",
    "hostname",
    "ifconfig",
    "insmod",
    "ip",
    "kill",
    "ln",
    "ls",
    "lsmod",
    "lspci",
    "md5sum",
    "mkdir",
    "mknod",
    "modprobe",
    "mount",
    "mv",
    "nc",
    "nproc",
    "od",
    "ping",
    "poweroff",
    "ps",
    "reboot",
    "rm",
    "rmmod",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stty",
    "switch_root",
    "sync",
    "tail",
    "tee",
    "test",
    "top",
    "touch",
    "tr",
    "true",
    "umount",
    "uname",
    "wc",
    "wget",
];

/// Writes `archive` (newc, gzip) with `init` as its `/init` and those modules and what they need.
pub(crate) fn pack(kernel: &Kernel, init: &str, modules: &[&str], archive: &Path) -> Result<()> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let root = scratch.path();
    fs::set_permissions(root, Permissions::from_mode(0o755))?;
    for folder in ["bin", "dev", "proc", "sys", "run", "tmp", "mnt", "root", "etc"] {
        fs::create_dir(root.join(folder))?;
    }
    fs::write(root.join("init"), init)?;
    fs::set_permissions(root.join("init"), Permissions::from_mode(0o755))?;
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .context("the package busybox-static put no busybox where it should be")?;
    fs::copy(busybox, root.join("bin/busybox")).context("cannot copy busybox")?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    copy_modules(kernel, modules, root)?;

    let script = r#"cd "$1" && find . | LC_ALL=C sort | cpio --quiet -o -H newc --owner=0:0 | gzip -1 -n > "$2""#;
    command::quietly(Command::new("sh").args(["-e", "-c", script, "sh"]).arg(root).arg(archive))
}

/// Copies the modules and all they depend on, and makes the lists that modprobe reads.
fn copy_modules(kernel: &Kernel, modules: &[&str], root: &Path) -> Result<()> {
    let list = fs::read_to_string(kernel.modules.join("modules.dep"))
        .context("depmod left no modules.dep")?;
    let home = root.join("lib/modules").join(&kernel.release);
    for file in closure(&list, modules)? {
        let target = home.join(file);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(kernel.modules.join(file), &target)
            .with_context(|| format!("cannot copy the module {file}"))?;
    }
    for file in ["modules.order", "modules.builtin"] {
        fs::copy(kernel.modules.join(file), home.join(file))?;
    }
    command::quietly(Command::new("depmod").arg("--basedir").arg(root).arg(&kernel.release))
}

/// The files behind the named modules and behind everything they depend on, by `modules.dep`.
fn closure<'a>(list: &'a str, modules: &[&str]) -> Result<Vec<&'a str>> {
    let mut files: Vec<&str> = Vec::new();
    for module in modules {
        let (file, needs) = list
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(file, _)| module_name(file) == module.replace('-', "_"))
            .with_context(|| format!("the kernel has no module {module}"))?;
        files.push(file);
        files.extend(needs.split_whitespace());
    }
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

/// `kernel/drivers/char/hw_random/virtio-rng.ko` is the module `virtio_rng`.
fn module_name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split(".ko").next().unwrap_or(base).replace('-', "_")
}

#[cfg(test)]
#[path = "initramfs_test.rs"]
mod tests;
