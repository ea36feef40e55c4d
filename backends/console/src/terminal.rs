//! Raw mode for this process's terminal, undone on every way out that a process can see.

use std::io;
use std::os::fd::AsFd;
use std::panic;
use std::sync::Arc;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Standard input in raw mode, so that every key is the guest's. Restored when dropped, and when
/// any thread panics.
pub(crate) struct RawTerminal {
    before: Arc<Saved>,
}

struct Saved(Termios);

// SAFETY: a `Termios` is plain settings; nix keeps a `RefCell` in it, which is only borrowed by
// calls that take it by reference, and those that restore run one at a time: at the end of the
// process, or in the hook of the panic that ends it.
unsafe impl Sync for Saved {}

impl Saved {
    fn restore(&self) {
        // Fails only when the terminal is gone, and then there is nothing to restore.
        let _gone = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.0);
    }
}

impl RawTerminal {
    /// Makes standard input raw; `None` when it is no terminal, such as a pipe or a file.
    pub(crate) fn enter() -> Option<Self> {
        let before = tcgetattr(io::stdin().as_fd()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        let before = Arc::new(Saved(before));
        let (in_panic, report) = (Arc::clone(&before), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            in_panic.restore();
            report(info);
        }));
        tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.before.restore();
    }
}
