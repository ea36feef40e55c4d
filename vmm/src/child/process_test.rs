//! How a process's end is told.

use std::os::unix::process::ExitStatusExt;

use super::*;

#[test]
fn an_exit_is_told_with_its_code_and_a_signal_by_its_name() {
    // wait(2): the code is in the second byte, the signal in the first.
    assert_eq!(Cause(ExitStatus::from_raw(1 << 8)).to_string(), "exited with code 1");
    assert_eq!(Cause(ExitStatus::from_raw(9)).to_string(), "killed by SIGKILL");
    assert_eq!(Cause(ExitStatus::from_raw(40)).to_string(), "killed by signal 40");
}
