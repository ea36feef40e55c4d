//! Where the programs under test, and their peers, are.

use std::path::{Path, PathBuf};

/// The program `name`: in the directory that `ATOLL_BIN` names, beside the running test's own
/// target directory, or on `PATH`, in this order.
pub fn find(name: &str) -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os("ATOLL_BIN") {
        return on_disk(&Path::new(&directory).join(name)).or_else(|| on_path(name));
    }
    let built = std::env::current_exe()
        .ok()
        // target/debug/deps/vm-0123: our binaries are two levels up.
        .and_then(|test| Some(test.parent()?.parent()?.join(name)));
    built.and_then(|path| on_disk(&path)).or_else(|| on_path(name))
}

/// Like [`find`], for a program of this workspace.
///
/// # Panics
/// When it has not been built.
#[track_caller]
pub fn ours(name: &str) -> PathBuf {
    match find(name) {
        Some(path) => path,
        None => {
            panic!("{name} is not built: `cargo build --workspace`, or name its place in ATOLL_BIN")
        }
    }
}

fn on_disk(path: &Path) -> Option<PathBuf> {
    path.is_file().then(|| path.to_owned())
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Administrators' tools (mke2fs, ip) are not on everybody's path.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into(), "/usr/libexec".into()])
        .find_map(|directory| on_disk(&directory.join(name)))
}
