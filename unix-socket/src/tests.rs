//! Binding, refusing, replacing and removing.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn path_in(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("vm.sock")
}

#[test]
fn a_sockets_file_lives_as_long_as_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let (_socket, file) = bind(&path_in(&dir), Access::Umask).unwrap();
    UnixStream::connect(path_in(&dir)).unwrap();
    drop(file);
    assert!(!path_in(&dir).exists());
}

#[test]
fn a_file_that_is_anothers_by_now_stays() {
    let dir = tempfile::tempdir().unwrap();
    let first = bind(&path_in(&dir), Access::Umask).unwrap();
    fs::remove_file(path_in(&dir)).unwrap();
    let _second = bind(&path_in(&dir), Access::Umask).unwrap();
    drop(first);
    UnixStream::connect(path_in(&dir)).unwrap();
}

#[test]
fn a_served_socket_is_refused_with_its_process_and_a_stale_one_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let listener = bind(&path_in(&dir), Access::Umask).unwrap();
    let error = bind(&path_in(&dir), Access::Umask).err().unwrap().to_string();
    let pid = std::process::id();
    assert!(error.ends_with(&format!("is already served by process {pid}")), "{error}");
    // Its process dies without cleaning up.
    let moved = dir.path().join("moved");
    fs::rename(path_in(&dir), &moved).unwrap();
    drop(listener);
    fs::rename(&moved, path_in(&dir)).unwrap();
    bind(&path_in(&dir), Access::Umask).unwrap();
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(path_in(&dir), b"precious").unwrap();
    assert!(matches!(bind(&path_in(&dir), Access::Umask), Err(SocketError::NotASocket { .. })));
    assert_eq!(fs::read(path_in(&dir)).unwrap(), b"precious");
}

#[test]
fn a_path_is_as_long_as_the_system_allows() {
    let dir = tempfile::tempdir().unwrap();
    let room = PATH_MAX - dir.path().as_os_str().len() - 1;
    bind(&dir.path().join("x".repeat(room)), Access::Umask).unwrap();
    let error = bind(&dir.path().join("x".repeat(room + 1)), Access::Umask).err().unwrap();
    assert!(matches!(error, SocketError::TooLong { len: 108, .. }));
}

#[test]
fn a_private_socket_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let _socket = bind(&path_in(&dir), Access::Owner).unwrap();
    assert_eq!(fs::metadata(path_in(&dir)).unwrap().permissions().mode() & 0o777, 0o600);
    UnixStream::connect(path_in(&dir)).unwrap();
}
