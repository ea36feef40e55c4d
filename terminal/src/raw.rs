//! Raw mode for this process's terminal, undone on every way out that a process can see.

use std::io;
use std::os::fd::AsFd;
use std::panic;
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// The settings from before, until they are restored.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input in raw mode, so that every key is the guest's. Restored when dropped, when any
/// thread panics, and when the process exits without dropping anything.
pub struct RawTerminal(());

impl RawTerminal {
    /// Makes standard input raw; `None` when it is no terminal, such as a pipe or a file.
    pub fn enter() -> Option<Self> {
        let before = tcgetattr(io::stdin().as_fd()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            report(info);
        }));
        // SAFETY: the function may run at any time and on any thread, and does not unwind.
        unsafe { libc::atexit(restore_at_exit) };
        set(&raw).ok()?;
        Some(Self(()))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

extern "C" fn restore_at_exit() {
    restore();
}

fn restore() {
    // Without waiting: whoever has it restores.
    let Ok(mut before) = BEFORE.try_lock() else { return };
    if let Some(before) = before.take() {
        // Fails only when the terminal is gone, and then there is nothing to restore.
        let _gone = set(&before);
    }
}

/// Changes the settings, also from the background, where the kernel would stop us for it.
fn set(settings: &Termios) -> nix::Result<()> {
    let stop: SigSet = [Signal::SIGTTOU].into_iter().collect();
    let mask = stop.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let result = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, settings);
    mask.thread_set_mask()?;
    result
}
