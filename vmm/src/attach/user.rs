//! Whoever wants to attach: a person at a terminal, or whatever standard input and output are.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use atoll_terminal::{Escape, HINT, RawTerminal, opened_anew};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{read, write};

use super::AttachError;

/// How much is typed at once.
const TYPED: usize = 4096;

/// Standard input and output. A terminal is raw, and as before when this is dropped.
pub(super) struct User {
    input: Option<OwnedFd>,
    output: OwnedFd,
    /// That the window has changed, and that we shall end.
    signals: SignalFd,
    person: Option<(Escape, RawTerminal)>,
}

/// What a user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing but that keys be passed on.
    None,
    /// To have the console know of a new window.
    Window,
    /// To leave.
    Leave,
}

impl User {
    /// Takes the terminal; a person is told how to leave `place` again.
    pub(super) fn take(place: &str) -> Result<Self, AttachError> {
        let failed = |doing| move |source| AttachError::System { doing, source };
        let watched =
            [Signal::SIGWINCH, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
        let watched: SigSet = watched.into_iter().collect();
        watched.thread_block().map_err(failed("watch for signals"))?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&watched, flags).map_err(failed("watch for signals"))?;
        let failed = failed("use standard input and output");
        let input = Some(opened_anew(io::stdin().as_fd(), true).map_err(failed)?);
        let output = opened_anew(io::stdout().as_fd(), false).map_err(failed)?;
        let raw = RawTerminal::enter();
        if raw.is_some() {
            eprint!("atoll: attached to {place}; {HINT}\r\n");
        }
        let person = raw.map(|raw| (Escape::default(), raw));
        Ok(Self { input, output, signals, person })
    }

    /// Whether there is a terminal, and so somebody to talk to.
    pub(super) fn is_person(&self) -> bool {
        self.person.is_some()
    }

    /// The terminal, if there is one.
    pub(super) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.person.as_ref().and(self.input())
    }

    pub(super) fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    pub(super) fn signals(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// What the signals say.
    pub(super) fn hear_signals(&mut self) -> Wish {
        let mut wish = Wish::None;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match signal.ssi_signo == Signal::SIGWINCH as u32 {
                true if wish == Wish::None => wish = Wish::Window,
                true => {}
                false => wish = Wish::Leave,
            }
        }
        wish
    }

    /// Adds to `keys` what was typed for the guest.
    pub(super) fn hear_keys(&mut self, keys: &mut Vec<u8>) -> Wish {
        let Some(input) = &self.input else { return Wish::None };
        let mut typed = [0; TYPED];
        let typed = match read(input, &mut typed) {
            Ok(count @ 1..) => typed.get(..count).unwrap_or_default(),
            Err(Errno::EAGAIN | Errno::EINTR) => return Wish::None,
            // The end of a script's input is not the end of the guest's output. A person's is.
            Ok(_) | Err(_) => {
                self.input = None;
                return if self.person.is_some() { Wish::Leave } else { Wish::None };
            }
        };
        let Some((escape, _raw)) = &mut self.person else {
            keys.extend_from_slice(typed);
            return Wish::None;
        };
        if escape.take(typed, keys) { Wish::Leave } else { Wish::None }
    }

    /// Shows as much as there is room for.
    pub(super) fn show(&mut self, bytes: &[u8]) -> nix::Result<usize> {
        write(&self.output, bytes)
    }
}
