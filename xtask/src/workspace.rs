//! Where things are in this workspace, and how its programs are built.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::shown;

/// The packages whose binaries a user runs.
const PROGRAMS: &[&str] = &["atoll", "atoll-blk", "atoll-net", "atoll-console"];

/// How the programs are built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Debug,
    Release,
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map(Path::to_path_buf).unwrap_or(xtask)
}

/// The workspace's own `target/`, where what takes long to make is kept, wherever cargo is told to
/// put its binaries.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// Cargo, in the workspace's folder.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Builds Atoll's programs and returns their paths.
pub(crate) fn programs(profile: Profile) -> Result<Vec<PathBuf>> {
    let mut build = cargo();
    build.arg("build");
    if profile == Profile::Release {
        build.arg("--release");
    }
    for package in PROGRAMS {
        build.args(["--package", package]);
    }
    executables(build.arg("--bins"))
}

/// The same programs, found in a folder instead of built; those that are not there are left out.
pub(crate) fn programs_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let found: Vec<_> =
        PROGRAMS.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect();
    if found.is_empty() {
        bail!("{} holds none of {}", folder.display(), PROGRAMS.join(", "));
    }
    Ok(found)
}

/// Runs a cargo command that builds and returns the executables it speaks of.
fn executables(build: &mut Command) -> Result<Vec<PathBuf>> {
    let path = |message: &Value| message.get("executable")?.as_str().map(PathBuf::from);
    Ok(built(build)?.iter().filter_map(path).collect())
}

/// Runs a cargo command that builds and returns what it says of each thing it has built.
pub(crate) fn built(build: &mut Command) -> Result<Vec<Value>> {
    let output = build
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(build)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", shown(build), output.status);
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    Ok(lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
