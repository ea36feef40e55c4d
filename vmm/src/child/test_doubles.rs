//! Backends that are scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::program::Program;

/// A backend that does what `script` says; the directory is where it lies.
pub(super) fn shell(script: &str) -> (Program, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backend");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    (Program { name: "backend", path, arguments: Vec::new(), on_terminal: false }, directory)
}
