//! Standard input and output: a terminal, or whatever a shell connects them to.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use atoll_terminal::{Escape, HINT, RawTerminal, opened_anew};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::read;

use crate::outlet::{OpenError, Outlet, ReaderId};
use crate::window::{Size, size_of};

/// How many keys of a terminal are taken at once.
const TYPED: usize = 1024;

/// This process's standard input and output.
pub(super) struct Stdio {
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    terminal: Option<Terminal>,
}

/// What there is only with a terminal: other input is the guest's as it is.
struct Terminal {
    /// Told when the window changes its size.
    resized: SignalFd,
    escape: Escape,
    _raw: RawTerminal,
}

impl Stdio {
    pub(super) fn open() -> Result<Self, OpenError> {
        let failed = |source| OpenError::System { doing: "use standard input and output", source };
        let input = opened_anew(io::stdin().as_fd(), true).map_err(failed)?;
        let output = opened_anew(io::stdout().as_fd(), false).map_err(failed)?;
        let terminal = match RawTerminal::enter() {
            Some(raw) => {
                // Not a log line: there is no other way to know. The terminal needs both.
                eprint!("atoll-console: {HINT}\r\n");
                Some(Terminal { resized: resizes()?, escape: Escape::default(), _raw: raw })
            }
            None => None,
        };
        Ok(Self { input: Some(input), output: Some(output), terminal })
    }
}

fn resizes() -> Result<SignalFd, OpenError> {
    let failed = |source| OpenError::System { doing: "listen for changes of the window", source };
    let mut signal = SigSet::empty();
    signal.add(Signal::SIGWINCH);
    signal.thread_block().map_err(failed)?;
    SignalFd::with_flags(&signal, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(failed)
}

impl Outlet for Stdio {
    fn readers(&self) -> Vec<(ReaderId, BorrowedFd<'_>)> {
        self.output.iter().map(|output| (0, output.as_fd())).collect()
    }

    fn input(&self) -> Option<(ReaderId, BorrowedFd<'_>)> {
        self.input.as_ref().map(|input| (0, input.as_fd()))
    }

    fn read(&mut self, keys: &mut [u8]) -> nix::Result<Option<usize>> {
        let Some(input) = &self.input else { return Ok(None) };
        let Some(terminal) = &mut self.terminal else {
            return Ok(Some(read(input, keys)?).filter(|&count| count > 0));
        };
        let mut typed = [0; TYPED];
        // One place is for the prefix, which may have been typed before.
        let most = keys.len().saturating_sub(1).min(TYPED);
        let count = read(input, typed.get_mut(..most).unwrap_or_default())?;
        if count == 0 {
            return Ok(None);
        }
        let mut ours = Vec::with_capacity(TYPED.saturating_add(1));
        if terminal.escape.take(typed.get(..count).unwrap_or_default(), &mut ours) {
            crate::leave::leave();
        }
        let room = keys.get_mut(..ours.len()).unwrap_or_default();
        room.copy_from_slice(ours.get(..room.len()).unwrap_or_default());
        Ok(Some(room.len()))
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(|terminal| terminal.resized.as_fd())
    }

    fn check(&mut self) {
        if let Some(terminal) = &self.terminal {
            while let Ok(Some(_signal)) = terminal.resized.read_signal() {}
        }
    }

    fn input_ended(&mut self) {
        self.input = None;
    }

    fn reader_left(&mut self, _reader: ReaderId, reason: &str) {
        tracing::warn!("nobody reads the console's output any more: {reason}");
        self.output = None;
    }

    fn window(&self) -> Option<Size> {
        size_of(io::stdin().as_fd())
    }
}
