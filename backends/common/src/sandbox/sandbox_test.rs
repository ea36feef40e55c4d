//! What keeps a process from entering its sandbox. What is behind it, the wire tests of the devices
//! try.

use super::*;

#[test]
fn a_thread_that_is_there_too_early_is_told_of() {
    // The test runner's, and one more in case that it has none.
    let (keep, kept) = std::sync::mpsc::channel::<()>();
    let early = std::thread::spawn(move || kept.recv());
    let error = enter(&Args::default(), Vec::new()).unwrap_err();
    assert!(matches!(error, SandboxError::Threads { count: 2.. }), "{error:?}");
    assert!(error.to_string().contains("threads run before the sandbox is entered"), "{error}");
    drop(keep);
    early.join().unwrap().unwrap_err();
}
