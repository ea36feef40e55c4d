//! What systemd is to a device process: it hands over a listening socket and is told of the
//! process's state (sd_listen_fds(3), sd_notify(3)).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, fcntl};

use crate::{Error, Process, TIMEOUT};

/// The first descriptor that is handed over.
const FIRST: RawFd = 3;

/// Above all descriptors that are passed on.
const HIGH: RawFd = 64;

/// Starts a process as a unit with a socket is started.
#[derive(Debug)]
pub struct ServiceManager {
    notifications: UnixDatagram,
}

impl ServiceManager {
    /// Starts `program` with `args` and `sockets`, and listens in `dir` for what it notifies.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start<A: AsRef<OsStr>>(
        dir: &Path,
        sockets: &[&UnixListener],
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Result<(Self, Process), Error> {
        let path = dir.join("notify");
        let notifications = UnixDatagram::bind(&path)
            .and_then(|socket| socket.set_read_timeout(Some(TIMEOUT)).map(|()| socket))
            .map_err(|source| Error::system("listening for notifications", source))?;
        let mut command = Command::new("sh");
        // The shell's process id becomes the program's.
        command.args(["-c", r#"LISTEN_PID=$$ exec "$@""#, "sh", program]).args(args);
        command.env("LISTEN_FDS", sockets.len().to_string()).env("NOTIFY_SOCKET", path);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        for (to, socket) in (FIRST..).zip(sockets) {
            pass_fd(&mut command, socket, to)?;
        }
        Ok((Self { notifications }, Process::run(&mut command)?))
    }

    /// The next that the process notifies, such as `READY=1`.
    ///
    /// # Errors
    /// When it says nothing in time.
    pub fn notified(&self) -> Result<String, Error> {
        let mut bytes = [0; 4096];
        let len = self
            .notifications
            .recv(&mut bytes)
            .map_err(|source| Error::system("waiting for a notification", source))?;
        let words = bytes.get(..len).unwrap_or_default();
        Ok(String::from_utf8_lossy(words).trim_end().to_owned())
    }
}

/// Lets the command inherit `from` as descriptor `to`, one of the low ones. The command keeps a
/// duplicate of `from` for as long as it is there.
///
/// # Errors
/// When there are too many open files.
pub fn pass_fd(command: &mut Command, from: impl AsFd, to: RawFd) -> Result<(), Error> {
    // Out of the way of all that is passed: a descriptor is not duplicated onto itself, and one
    // that is still to be passed must not be closed by one that was.
    let high = fcntl(from, FcntlArg::F_DUPFD_CLOEXEC(HIGH))
        .map_err(|errno| Error::system("duplicating a descriptor to pass on", errno))?;
    // SAFETY: it was made just now, and nobody else knows of it.
    let high = unsafe { OwnedFd::from_raw_fd(high) };
    let pass = move || {
        // SAFETY: makes no reference to memory, and is allowed between fork and exec.
        let passed = unsafe { libc::dup2(high.as_raw_fd(), to) };
        if passed < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: `pass` makes one system call and nothing else.
    unsafe { command.pre_exec(pass) };
    Ok(())
}
