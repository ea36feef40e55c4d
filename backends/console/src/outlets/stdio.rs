//! Standard input and output: a terminal, or whatever a shell connects them to.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::outlet::{OpenError, Outlet, ReaderId};
use crate::terminal::RawTerminal;
use crate::window::Size;

/// This process's standard input and output.
pub(super) struct Stdio {
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    /// Told when the terminal's window changes its size; only for a terminal.
    resized: Option<SignalFd>,
    _raw: Option<RawTerminal>,
}

impl Stdio {
    pub(super) fn open() -> Result<Self, OpenError> {
        let input = unblocking(io::stdin().as_fd(), true)?;
        let output = unblocking(io::stdout().as_fd(), false)?;
        let raw = RawTerminal::enter();
        let resized = if Size::of(io::stdin().as_fd()).is_some() { Some(resizes()?) } else { None };
        Ok(Self { input: Some(input), output: Some(output), resized, _raw: raw })
    }
}

/// The same file, opened anew where that is possible: not to block is a property of what others
/// share with us, such as the shell that started us.
fn unblocking(fd: BorrowedFd<'_>, input: bool) -> Result<OwnedFd, OpenError> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let anew = OpenOptions::new().read(input).write(!input).custom_flags(flags).open(path);
    if let Ok(file) = anew
        && !is_seekable(&file)
    {
        return Ok(file.into());
    }
    let failed = |source| OpenError::System { doing: "use standard input and output", source };
    let shared = fd.try_clone_to_owned().map_err(|_none_left| failed(nix::errno::Errno::EMFILE))?;
    let flags = OFlag::from_bits_retain(fcntl(&shared, FcntlArg::F_GETFL).map_err(failed)?);
    fcntl(&shared, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(failed)?;
    Ok(shared)
}

/// Whether the file has a position, which a new opening would start at zero.
fn is_seekable(file: &std::fs::File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
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

    fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(AsFd::as_fd)
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        self.resized.as_ref().map(AsFd::as_fd)
    }

    fn check(&mut self) {
        if let Some(resized) = &self.resized {
            while let Ok(Some(_signal)) = resized.read_signal() {}
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
        Size::of(io::stdin().as_fd())
    }
}
