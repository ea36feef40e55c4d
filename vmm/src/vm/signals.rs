//! Signals for the whole process, taken by a thread of their own so that no code is interrupted.

use std::io;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// Blocks SIGTERM, SIGINT, SIGHUP and SIGCHLD in this thread and those it starts, and calls
/// `on_signal` for each that comes, on a thread that sleeps in between.
///
/// Call it before any other thread is started, or the signal may be delivered there.
///
/// # Errors
/// When the mask can't be set or the thread can't be started.
pub(super) fn watch(on_signal: impl Fn(Signal) + Send + 'static) -> io::Result<()> {
    let watched = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD];
    let signals: SigSet = watched.into_iter().collect();
    signals.thread_block()?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while let Ok(signal) = signals.wait() {
            on_signal(signal);
        }
    })?;
    Ok(())
}
