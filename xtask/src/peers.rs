//! Other people's device processes that tests attach to Atoll: published crates, built once and
//! kept in `target/peers`. Runs none of them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{cache, command, workspace};

/// Crates and the versions that the tests were written against.
const CRATES: &[&str] = &["vhost-device-rng@0.1.0", "virtiofsd@1.14.0"];

/// Returns the programs, built when they are not there yet.
pub(crate) fn ensure() -> Result<Vec<PathBuf>> {
    let recipe = format!("peers 1\n{}\n", CRATES.join("\n"));
    let folder = cache::folder(&workspace::target(), "peers", &recipe, |folder| {
        eprintln!("building {} (once, about two minutes)", CRATES.join(" and "));
        install(folder)
    })?;
    let names = CRATES.iter().filter_map(|name| name.split('@').next());
    Ok(names.map(|name| folder.join("bin").join(name)).collect())
}

fn install(folder: &Path) -> Result<()> {
    // What is left of the build is not ours to keep.
    let build = tempfile::tempdir_in(folder)?;
    command::quietly(
        workspace::cargo()
            .args(["install", "--locked", "--root"])
            .arg(folder)
            .arg("--target-dir")
            .arg(build.path())
            .args(CRATES),
    )
}
