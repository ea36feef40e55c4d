//! What is particular to the control socket; the rest is tested where sockets are bound.

use std::fs;
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
fn nobody_waits_for_a_client_that_does_not_come() {
    let directory = tempfile::tempdir().unwrap();
    let socket = bound(&directory.path().join("control")).unwrap();
    assert!(socket.accept().unwrap().is_none());
}

#[test]
fn what_is_in_its_place_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let _served = bound(&path).unwrap();
    let refusal = bound(&path).unwrap_err();
    assert!(matches!(refusal, SocketError::Path(unix_socket::SocketError::Served { .. })));
}
