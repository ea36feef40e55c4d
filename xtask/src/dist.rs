//! `cargo xtask dist`: what users install, as a tree laid out as on the machine, and as a Debian
//! package where there is dpkg-deb. What is in the units and descriptions is in `dist/`.

mod deb;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::command;
use crate::workspace::{self, Profile};

/// Folders of `dist/`, and where their files are installed.
const FILES: &[(&str, &str)] = &[
    ("systemd", "usr/lib/systemd/system"),
    ("sysusers.d", "usr/lib/sysusers.d"),
    ("tmpfiles.d", "usr/lib/tmpfiles.d"),
    ("qemu", "usr/share/qemu/vhost-user"),
];

/// Folders that the administrator fills.
const FOLDERS: &[&str] = &["etc/atoll/blk", "etc/atoll/net", "etc/atoll/console"];

/// What is for people to read.
const DOCUMENTS: &[&str] =
    &["LICENSE", "README.md", "docs/guide.md", "docs/api.md", "docs/specification.md"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder to write to [default: target/dist]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// The task.
pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let output = args.output.clone().unwrap_or_else(|| workspace::target().join("dist"));
    let tree = output.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("cannot empty {}", tree.display()))?;
    }
    lay_out(&tree)?;
    println!("{}", tree.display());
    if command::exists("dpkg-deb") {
        println!("{}", deb::pack(&tree, &output)?.display());
    } else {
        eprintln!("no Debian package is made: there is no dpkg-deb here");
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything, in its place below `tree`.
fn lay_out(tree: &Path) -> Result<()> {
    for program in workspace::programs(Profile::Release)? {
        let installed = install(&program, &tree.join("usr/bin"), 0o755)?;
        command::quietly(Command::new("strip").arg("--strip-unneeded").arg(&installed))?;
    }
    let root = workspace::root();
    for (folder, place) in FILES {
        let folder = root.join("dist").join(folder);
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            install(&entry?.path(), &tree.join(place), 0o644)?;
        }
    }
    for folder in FOLDERS {
        fs::create_dir_all(tree.join(folder)).with_context(|| format!("cannot make {folder}"))?;
    }
    for document in DOCUMENTS {
        install(&root.join(document), &tree.join("usr/share/doc/atoll"), 0o644)?;
    }
    let share = tree.join("usr/share");
    command::run(
        workspace::cargo()
            .args(["run", "--quiet", "--package", "atoll-dist", "--"])
            .arg(fs::canonicalize(&share).context("cannot find the tree just made")?),
    )?;
    compress(&share.join("man/man1"))
}

/// Copies a file into a folder, which is made.
fn install(file: &Path, folder: &Path, mode: u32) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let name = file.file_name().with_context(|| format!("{} has no name", file.display()))?;
    let installed = folder.join(name);
    fs::copy(file, &installed)
        .with_context(|| format!("cannot copy {} into the tree", file.display()))?;
    fs::set_permissions(&installed, Permissions::from_mode(mode))?;
    Ok(installed)
}

/// As Debian has its man pages; without a time stamp, so that the same page is the same file.
fn compress(pages: &Path) -> Result<()> {
    for entry in fs::read_dir(pages)? {
        command::quietly(Command::new("gzip").args(["-9n", "--force"]).arg(entry?.path()))?;
    }
    Ok(())
}
