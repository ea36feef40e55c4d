//! What guests boot from: `vmlinux`, `bzImage`, `initramfs.cpio.gz` and `root.ext4` in one
//! directory, which `cargo xtask` makes from Debian packages.

use std::path::{Path, PathBuf};

/// The file `name` of the guest directory: the one `ATOLL_GUEST` names, or the lab's, or the one
/// under this workspace's `target`. `None` when it has not been made.
pub fn find(name: &str) -> Option<PathBuf> {
    directories().map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// Like [`find`].
///
/// # Panics
/// When the file has not been made.
#[track_caller]
pub fn get(name: &str) -> PathBuf {
    match find(name) {
        Some(path) => path,
        None => {
            panic!("no guest {name}: `cargo xtask test` makes it, or name its place in ATOLL_GUEST")
        }
    }
}

fn directories() -> impl Iterator<Item = PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
    let named = std::env::var_os("ATOLL_GUEST").map(PathBuf::from);
    let usual = ["/guest".into(), workspace.join("target/guest")];
    // A directory that is named is the only one looked at.
    let usual = if named.is_some() { None } else { Some(usual) };
    named.into_iter().chain(usual.into_iter().flatten())
}
