//! The disk that is made for one run of the lab: programs, the caller's files and the command.
//! The file has no name from the moment it is complete, so nothing of it can be left behind.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::debian;

/// What goes on the disk.
pub(crate) struct Contents<'a> {
    /// Copied to `/run-disk/bin`, which is first on PATH.
    pub(crate) programs: &'a [PathBuf],
    /// Copied to `/with`.
    pub(crate) files: &'a [PathBuf],
    /// The program to run and its arguments.
    pub(crate) command: &'a [String],
    /// Environment variables for the command.
    pub(crate) environment: &'a [(String, String)],
    /// The size of the terminal that the command gets, when it gets one.
    pub(crate) terminal: Option<(u16, u16)>,
}

/// Makes the disk.
pub(super) fn make(contents: &Contents<'_>) -> Result<File> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let tree = scratch.path().join("tree");
    for folder in ["bin", "with"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    for program in contents.programs {
        copy_program(program, &tree.join("bin"))?;
    }
    for file in contents.files {
        copy(file, &tree.join("with"))?;
    }
    let words: Vec<_> = contents.command.iter().map(|word| command::quoted(word)).collect();
    let script = tree.join("command");
    fs::write(&script, format!("#!/bin/sh\nexec {}\n", words.join(" ")))?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    let exports = contents
        .environment
        .iter()
        .map(|(name, value)| format!("export {name}={}\n", command::quoted(value)))
        .collect::<String>();
    fs::write(tree.join("environment"), exports)?;
    if let Some((rows, columns)) = contents.terminal {
        fs::write(tree.join("terminal"), format!("rows {rows} cols {columns}"))?;
    }

    let used = command::read(Command::new("du").args(["-s", "-B1", "--apparent-size"]).arg(&tree))?;
    let used: u64 = used
        .split_whitespace()
        .next()
        .and_then(|size| size.parse().ok())
        .context("du printed no size")?;
    let image = scratch.path().join("run.ext4");
    debian::image_of(&tree, "run", used + used / 8 + (256 << 20), &image)?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&image)
        .with_context(|| format!("cannot open {}", image.display()))
}

/// Copies a program without its debugging information, which nobody reads in there.
fn copy_program(program: &Path, folder: &Path) -> Result<()> {
    copy(program, folder)?;
    if let Some(name) = program.file_name() {
        // A script has none, and strip says so.
        let _ = Command::new("strip")
            .arg("--strip-debug")
            .arg(folder.join(name))
            .stderr(std::process::Stdio::null())
            .status();
    }
    Ok(())
}

fn copy(from: &Path, folder: &Path) -> Result<()> {
    command::quietly(
        Command::new("cp")
            .args(["--recursive", "--dereference", "--sparse=always", "--preserve=mode"])
            .arg(from)
            .arg(folder),
    )
    .with_context(|| format!("cannot take {} into the lab", from.display()))
}
