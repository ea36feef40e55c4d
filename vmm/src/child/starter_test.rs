//! Children and the threads that asked for them.

use std::io::Read;
use std::time::Duration;

use super::super::test_doubles::shell;
use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_child_lives_on_when_the_thread_that_asked_for_it_ends() {
    let (program, _directory) = shell("sleep 0.2; exit 7");
    let starter = Starter::new().unwrap();
    let asking = || starter.start(&program, vec![]).unwrap();
    let (mut child, _socket) = thread::scope(|scope| scope.spawn(asking).join().unwrap());
    assert_eq!(child.ended(PATIENCE).unwrap().code(), Some(7));
}

#[test]
fn children_die_with_their_starter_and_close_their_sockets() {
    let (program, _directory) = shell("exec sleep 1000");
    let starter = Starter::new().unwrap();
    let (mut child, mut ends) = starter.start(&program, vec![]).unwrap();
    assert!(child.ended(Duration::from_millis(50)).is_none());
    drop(starter);
    assert_eq!(ends.device.read(&mut [0]).unwrap(), 0);
    let status = child.ended(PATIENCE).unwrap();
    assert_eq!(super::super::process::Cause(status).to_string(), "killed by SIGKILL");
}

#[test]
fn a_program_that_cannot_be_executed_is_named() {
    let program = Program {
        name: "backend",
        path: "/nonexistent/backend".into(),
        arguments: Vec::new(),
        on_terminal: false,
    };
    let error = Starter::new().unwrap().start(&program, vec![]).unwrap_err();
    assert_eq!(error.to_string(), "can't start /nonexistent/backend");
}
