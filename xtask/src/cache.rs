//! Folders under `target/` that are made once and made again when their recipe changes. Knows
//! nothing of what is in them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};

/// The file inside a finished folder that holds the recipe it was made by.
const STAMP: &str = ".recipe";

/// Returns `target/NAME`, made by `build` unless it is there and was made by the same recipe.
/// Several processes may ask at once: one builds, the others wait for it.
pub(crate) fn folder(
    target: &Path,
    name: &str,
    recipe: &str,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    fs::create_dir_all(target).with_context(|| format!("cannot create {}", target.display()))?;
    let finished = target.join(name);
    if fresh(&finished, recipe) {
        return Ok(finished);
    }

    let lock = lock(&target.join(format!(".{name}.lock")))?;
    if fresh(&finished, recipe) {
        return Ok(finished);
    }
    let partial = target.join(format!("{name}.partial"));
    remove(&partial)?;
    fs::create_dir(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    build(&partial).with_context(|| format!("cannot make {}", finished.display()))?;
    // The stamp goes in last, and the folder takes its name last of all: what is found under the
    // name is complete. Those who have files of the old one open keep them.
    fs::write(partial.join(STAMP), recipe)
        .with_context(|| format!("cannot write into {}", partial.display()))?;
    remove(&finished)?;
    fs::rename(&partial, &finished)
        .with_context(|| format!("cannot put {} in place", finished.display()))?;
    drop(lock);
    Ok(finished)
}

fn fresh(folder: &Path, recipe: &str) -> bool {
    fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == recipe)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn lock(path: &Path) -> Result<Flock<File>> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((file, _)) => {
            eprintln!("waiting for another process that holds {}", path.display());
            Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, errno)| anyhow!("cannot lock {}: {errno}", path.display()))
        }
    }
}
