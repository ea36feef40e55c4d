//! Finding a back-end.

use std::os::unix::net::UnixListener;

use super::*;

const SHORT: Duration = Duration::from_millis(150);

#[test]
fn a_back_end_that_comes_late_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("late.sock");
    let server = thread::spawn({
        let path = path.clone();
        move || {
            thread::sleep(SHORT);
            UnixListener::bind(path).unwrap()
        }
    });
    wait_for("disk0", &mut SocketPeer::new(path), Some(Duration::from_secs(10))).unwrap();
    server.join().unwrap();
}

#[test]
fn nobody_comes_within_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    for path in [dir.path().join("missing.sock"), stale] {
        let start = Instant::now();
        let error = wait_for("disk0", &mut SocketPeer::new(path), Some(SHORT)).unwrap_err();
        assert!(matches!(error, VhostUserError::NobodyThere { .. }), "{error}");
        assert!(error.to_string().contains("--connect-timeout"), "{error}");
        assert!(start.elapsed() >= SHORT);
    }
}

#[test]
fn what_can_never_become_a_back_end_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let start = Instant::now();
    for path in [file.as_path(), dir.path(), Path::new("/dev/null")] {
        let error =
            wait_for("disk0", &mut SocketPeer::new(path.to_owned()), Some(Duration::from_secs(10)))
                .unwrap_err();
        assert!(matches!(error, VhostUserError::NotASocket), "{path:?}: {error}");
    }
    let long = PathBuf::from(format!("/{}", "x".repeat(107)));
    let error =
        wait_for("disk0", &mut SocketPeer::new(long), Some(Duration::from_secs(10))).unwrap_err();
    assert!(matches!(error, VhostUserError::PathTooLong { len: 108, max: 107 }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}
