//! One process of a backend, from its start to its reaping.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};

use super::{ChildError, Program};

/// What a service manager told us, and us alone.
const OURS: [&str; 6] = [
    "NOTIFY_SOCKET",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// The exit code of an `atoll-console` whose user has left by the keys for it.
const USER_LEFT: i32 = 3;

/// Between two looks at whether a process has ended.
const LOOK: Duration = Duration::from_millis(1);

/// Our ends of a backend's sockets.
#[derive(Debug)]
pub struct Ends {
    /// To the device.
    pub device: UnixStream,
    /// To who answers questions about it.
    pub control: UnixStream,
}

/// A running backend of ours.
#[derive(Debug)]
pub struct Child {
    program: &'static str,
    process: std::process::Child,
    started: Instant,
    /// When it was first found to have ended.
    ended: Option<Instant>,
    /// Whether its end may be the wish of a user at our terminal, who has not been heard yet.
    user: bool,
}

impl Child {
    /// Starts `program`, with `more` arguments, and returns it with our ends of its sockets.
    ///
    /// Only for the [`Starter`](super::Starter): the child dies with the thread that calls this.
    pub(super) fn spawn(program: &Program, more: &[OsString]) -> Result<(Self, Ends), ChildError> {
        let name = program.name;
        let pair = || {
            let pair = UnixStream::pair();
            pair.map_err(|source| ChildError::SocketPair { program: name, source })
        };
        let ((device, theirs), (control, their_control)) = (pair()?, pair()?);
        let fds = [theirs.as_raw_fd(), their_control.as_raw_fd()];
        let mut command = Command::new(&program.path);
        command.arg(format!("--fd={}", theirs.as_raw_fd()));
        command.arg(format!("--control-fd={}", their_control.as_raw_fd()));
        command.args(&program.arguments).args(more);
        for variable in OURS {
            command.env_remove(variable);
        }
        if !program.on_terminal {
            // Its own process group: Ctrl-C at the terminal is for the guest or for us to act on,
            // and a device must not vanish before the guest has powered off.
            command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        }
        let parent = getpid();
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; `settle` makes
        // four system calls and touches no heap. The descriptors are open in the child, as they are
        // dropped here only after `spawn` has returned.
        unsafe { command.pre_exec(move || settle(fds, parent)) };
        let process = command
            .spawn()
            .map_err(|source| ChildError::Spawn { program: program.path.clone(), source })?;
        let (started, user) = (Instant::now(), program.on_terminal);
        let child = Self { program: name, process, started, ended: None, user };
        Ok((child, Ends { device, control }))
    }

    /// The program's name.
    pub fn program(&self) -> &'static str {
        self.program
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How long it has lived.
    pub(super) fn age(&self) -> Duration {
        self.ended.unwrap_or_else(Instant::now).saturating_duration_since(self.started)
    }

    /// How it ended, if it has. Waits up to `patience` for it, as a dying process closes its
    /// socket before it can be reaped.
    pub fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) => {
                    self.ended.get_or_insert_with(Instant::now);
                    return Some(status);
                }
                Ok(None) if Instant::now() < deadline => thread::sleep(LOOK),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Whether it has ended because the user at the terminal left. True once.
    pub(super) fn has_user_left(&mut self) -> bool {
        let left = self.user
            && self
                .process
                .try_wait()
                .is_ok_and(|end| end.is_some_and(|status| status.code() == Some(USER_LEFT)));
        self.user &= !left;
        left
    }

    /// Ends it at once, be it stopped or hung.
    pub(super) fn kill(&mut self) {
        // Fails only when it has ended and been reaped.
        let _gone = self.process.kill();
    }

    /// Asks it to finish what is in flight and end; ends it after `patience`.
    pub fn stop(mut self, patience: Duration) {
        if self.ended(Duration::ZERO).is_some() {
            return;
        }
        if let Ok(pid) = i32::try_from(self.pid()) {
            // It is our child and not yet reaped, so the number can't have passed to another.
            let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if self.ended(patience).is_none() {
            tracing::warn!(
                "{} (pid {}) did not end within {} s of SIGTERM and is killed",
                self.program,
                self.pid(),
                patience.as_secs()
            );
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when it has ended and been reaped, which is what they are for.
        let _killed = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// An exit status as the end of a sentence: `killed by SIGKILL`, `exited with code 1`.
pub(super) struct Cause(pub(super) ExitStatus);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.code(), self.0.signal()) {
            (Some(code), _) => write!(f, "exited with code {code}"),
            (None, Some(number)) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                // A real-time signal.
                Err(_unnamed) => write!(f, "killed by signal {number}"),
            },
            (None, None) => write!(f, "{}", self.0),
        }
    }
}

/// In the child, before the program starts: keep the sockets open, and die with the parent.
fn settle(fds: [RawFd; 2], parent: Pid) -> io::Result<()> {
    for fd in fds {
        // SAFETY: the descriptor is a socket's, open in this process until exec and beyond.
        let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before the request was in force.
    if getppid() != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

#[cfg(test)]
#[path = "process_test.rs"]
mod tests;
