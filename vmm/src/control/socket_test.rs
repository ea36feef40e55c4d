//! Where the control socket may be.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn bound(path: &Path) -> Result<Socket, SocketError> {
    Socket::open(Some(path)).map(Option::unwrap)
}

#[test]
fn only_its_owner_may_connect_and_the_file_goes_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let socket = bound(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(UnixStream::connect(&path).is_ok());
    drop(socket);
    assert!(!path.exists());
}

#[test]
fn a_socket_that_nobody_serves_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    drop(UnixListener::bind(&path).unwrap());
    assert!(bound(&path).is_ok());
}

#[test]
fn a_socket_that_is_served_is_refused_with_its_process_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let _served = bound(&path).unwrap();
    let refusal = bound(&path).unwrap_err().to_string();
    assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
    assert!(UnixStream::connect(&path).is_ok());
}

#[test]
fn a_file_that_is_no_socket_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    fs::write(&path, "data").unwrap();
    assert!(matches!(bound(&path), Err(SocketError::NotASocket { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"data");
}

#[test]
fn a_path_too_long_is_refused_with_its_length() {
    let path = PathBuf::from(format!("/{}", "x".repeat(PATH_MAX)));
    assert!(matches!(bound(&path), Err(SocketError::TooLong { len: 108, .. })));
}

#[test]
fn a_socket_of_another_in_its_place_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let socket = bound(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(socket);
    assert!(path.exists());
}
