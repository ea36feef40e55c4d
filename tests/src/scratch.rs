//! A directory of a test's own, gone when the test is over.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary directory under `TMPDIR`, with a name short enough for sockets in it.
pub struct Scratch(TempDir);

impl Scratch {
    /// Makes one.
    #[track_caller]
    #[expect(clippy::new_without_default, reason = "it makes a directory: that should be seen")]
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("atoll-").tempdir().expect("make a scratch directory"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where a file named `name` in it is, or would be.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes `contents` to a file named `name` in it.
    #[track_caller]
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, contents).expect("write a scratch file");
        path
    }
}
