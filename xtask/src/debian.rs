//! Makes things out of Debian packages with the machine's own apt configuration: root file systems
//! and the stock cloud kernel. Says nothing about what goes into them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// The package that depends on Debian's newest kernel for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Debian's kernel for virtual machines, unpacked.
pub(crate) struct Kernel {
    /// Its version, as `uname -r` shows it.
    pub(crate) release: String,
    /// The compressed image.
    pub(crate) image: PathBuf,
    /// `lib/modules/RELEASE`, with the lists that modprobe reads.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// Fetches the stock kernel and unpacks it into `folder`.
    pub(crate) fn fetch(folder: &Path) -> Result<Self> {
        let package = kernel_package()?;
        command::quietly(
            Command::new("apt-get").args(["download", "-q"]).arg(&package).current_dir(folder),
        )?;
        let archive = only_entry(folder, |name| name.ends_with(".deb"))?;
        let tree = folder.join("tree");
        command::quietly(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&tree))?;
        fs::remove_file(&archive)
            .with_context(|| format!("cannot remove {}", archive.display()))?;
        let kernel = Self::unpacked(folder)?;
        command::quietly(Command::new("depmod").arg("--basedir").arg(&tree).arg(&kernel.release))?;
        Ok(kernel)
    }

    /// The kernel that `fetch` has unpacked into `folder`.
    pub(crate) fn unpacked(folder: &Path) -> Result<Self> {
        let tree = folder.join("tree");
        let image = only_entry(&tree.join("boot"), |name| name.starts_with("vmlinuz-"))?;
        let modules = only_entry(&tree.join("lib/modules"), |_| true)?;
        let release = modules
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .context("the kernel package has no folder of modules")?;
        Ok(Self { release, image, modules })
    }

    /// Copies all of the kernel's modules into a root file system to be.
    pub(crate) fn copy_modules(&self, root: &Path) -> Result<()> {
        // `lib` is a link to `usr/lib` in a Debian of today.
        let home = root.join("usr/lib/modules");
        fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        command::quietly(Command::new("cp").arg("--recursive").arg(&self.modules).arg(home))
    }
}

/// A root file system to make.
pub(crate) struct RootFs<'a> {
    /// Packages beyond Debian's `minbase`.
    pub(crate) packages: &'a [&'a str],
    /// A folder laid over the root when the packages are in.
    pub(crate) overlay: &'a Path,
    /// Shell commands run inside at the end.
    pub(crate) finish: &'a str,
    /// The size of the image as mke2fs takes it; what is unused takes no room on disk.
    pub(crate) size: &'a str,
}

/// Makes an ext4 image of the root file system, without mounting anything on this machine.
pub(crate) fn root_image(root: &RootFs<'_>, image: &Path) -> Result<()> {
    let scratch = tempfile::tempdir_in(image.parent().unwrap_or(Path::new(".")))
        .context("cannot make a temporary folder")?;
    let overlay = scratch.path().join("overlay.tar");
    command::quietly(
        Command::new("tar")
            .args(["--create", "--owner=0", "--group=0", "--numeric-owner", "--file"])
            .arg(&overlay)
            .arg("--directory")
            .arg(root.overlay)
            .arg("."),
    )?;
    let options = scratch.path().join("apt.conf");
    fs::write(&options, acquire_options()?).context("cannot write apt's options")?;

    let archive = scratch.path().join("root.tar");
    command::quietly(
        Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase", "--format=tar"])
            // What `finish` has set stays.
            .arg("--skip=cleanup/reproducible")
            .arg(format!("--aptopt={}", options.display()))
            .arg(format!("--include={}", root.packages.join(",")))
            // Nobody reads manuals in there, and all of it travels through an emulated disk.
            .arg("--dpkgopt=path-exclude=/usr/share/man/*")
            .arg("--dpkgopt=path-exclude=/usr/share/doc/*")
            .arg("--dpkgopt=path-exclude=/usr/share/locale/*")
            .arg(format!("--customize-hook=tar-in {} /", overlay.display()))
            .arg(format!(
                "--customize-hook=chroot \"$1\" sh -e -c {}",
                command::quoted(root.finish)
            ))
            .arg(host_suite()?)
            .arg(&archive)
            .args(sources()?),
    )?;

    // mke2fs copies a folder with the owners it sees, so only root, or somebody whom fakeroot
    // makes believe, may unpack one.
    let script = r#"mkdir "$1" && tar -xf "$2" -C "$1" && mke2fs -q -F -t ext4 -O ^has_journal -E root_owner=0:0 -L "$5" -d "$1" "$3" "$4""#;
    let mut unpack = if nix::unistd::geteuid().is_root() {
        Command::new("sh")
    } else {
        let mut fakeroot = Command::new("fakeroot");
        fakeroot.arg("sh");
        fakeroot
    };
    command::quietly(
        unpack
            .args(["-e", "-c", script, "sh"])
            .arg(scratch.path().join("root"))
            .arg(&archive)
            .arg(image)
            .arg(root.size)
            .arg("root"),
    )
}

/// Makes an ext4 image of a folder, owned by root inside.
pub(crate) fn image_of(folder: &Path, label: &str, size: u64, image: &Path) -> Result<()> {
    command::quietly(
        Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0"])
            .args(["-E", "root_owner=0:0,lazy_itable_init=1", "-L", label, "-d"])
            .arg(folder)
            .arg(image)
            .arg(format!("{}k", size.div_ceil(1024))),
    )
}

fn kernel_package() -> Result<String> {
    let shown =
        command::read(Command::new("apt-cache").args(["show", "--no-all-versions", KERNEL]))?;
    shown
        .lines()
        .find_map(|line| line.strip_prefix("Depends: ")?.split([' ', ',']).next())
        .map(str::to_owned)
        .with_context(|| format!("apt knows no kernel behind the package {KERNEL}"))
}

fn only_entry(folder: &Path, matches: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let found: Vec<_> =
        entries.flatten().filter(|entry| matches(&entry.file_name().to_string_lossy())).collect();
    match found.as_slice() {
        [entry] => Ok(entry.path()),
        _ => bail!("expected one fitting entry in {}, found {}", folder.display(), found.len()),
    }
}

/// The machine's own Debian sources, one line each, and nobody else's.
fn sources() -> Result<Vec<String>> {
    // apt itself reads its configuration, in whichever of its formats that is.
    let targets = command::read(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
        "Created-By: Packages",
    ]))?;
    let lines: Vec<_> = targets.lines().filter_map(source_line).collect();
    if lines.is_empty() {
        bail!("apt has no Debian sources here; this task needs a Debian machine");
    }
    Ok(lines)
}

fn source_line(target: &str) -> Option<String> {
    let mut fields = target.strip_prefix("Debian|")?.split('|');
    let (uri, suite, component) = (fields.next()?, fields.next()?, fields.next()?);
    Some(format!("deb {uri} {suite} {component}"))
}

/// The suite that this machine runs: our binaries, built here, find the same libraries there.
fn host_suite() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .context("/etc/os-release names no suite (VERSION_CODENAME)")
}

/// How this machine's apt fetches: proxies, time-outs, what it does not check.
fn acquire_options() -> Result<String> {
    let dump = command::read(Command::new("apt-config").args(["dump", "Acquire"]))?;
    let wanted = |line: &&str| !line.contains(" \"\";") && !line.contains("::IndexTargets");
    Ok(dump.lines().filter(wanted).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
#[path = "debian_test.rs"]
mod tests;
