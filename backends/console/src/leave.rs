//! The user at the terminal wants to leave: the process ends as SIGTERM ends it, with an exit code that
//! tells whoever started it why.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;

/// The exit code when the user has left. `atoll` knows it.
const LEFT: u8 = 3;

/// Whether the user has left.
static LEAVING: AtomicBool = AtomicBool::new(false);

/// Ends this process in good order; once more, at once.
pub(crate) fn leave() {
    LEAVING.store(true, Ordering::Relaxed);
    // To ourselves, which nothing forbids.
    let _sent = kill(getpid(), Signal::SIGTERM);
}

/// What the process ends with: `code`, unless all went well and the user has left.
#[must_use]
pub fn exit_code(code: ExitCode) -> ExitCode {
    let left = LEAVING.load(Ordering::Relaxed) && code == ExitCode::SUCCESS;
    if left { ExitCode::from(LEFT) } else { code }
}
