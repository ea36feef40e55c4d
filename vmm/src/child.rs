//! A backend that we started: found, started on one end of a socket pair, stopped and reaped.
//!
//! What is said over the socket is not known here. A child never outlives us: the kernel ends it
//! when the thread that started it dies, whatever the cause.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};

use crate::config::{BackendConfig, ConsoleConfig, ConsoleTo, DiskConfig, NetConfig};

/// Why a backend could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// There is no such program.
    #[error(
        "can't find the backend {program}, neither beside atoll nor on PATH; install it, or serve \
         the device yourself and attach it with --device"
    )]
    NotFound {
        /// The program's name.
        program: &'static str,
    },
    /// No socket pair could be made.
    #[error("can't make a socket pair for {program}")]
    SocketPair {
        /// The program's name.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The program could not be executed.
    #[error("can't start {program}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A running backend of ours.
#[derive(Debug)]
pub struct Child {
    program: &'static str,
    process: std::process::Child,
}

impl Child {
    /// Starts the backend for `config` and returns it with our end of its socket.
    ///
    /// Call this on a thread that lives as long as the machine: the child dies with it.
    ///
    /// # Errors
    /// [`ChildError`], or `Ok(None)` where the device is somebody else's to serve.
    pub fn spawn(
        config: &BackendConfig,
        cpus: u8,
    ) -> Result<Option<(Self, UnixStream)>, ChildError> {
        let (program, arguments) = match config {
            BackendConfig::Disk(disk) => ("atoll-blk", blk(disk, cpus)),
            BackendConfig::Net(net) => ("atoll-net", net_arguments(net)),
            BackendConfig::Console(console) => ("atoll-console", console_arguments(console)),
            BackendConfig::Socket(_) => return Ok(None),
        };
        let path = find(program).ok_or(ChildError::NotFound { program })?;
        let (ours, theirs) =
            UnixStream::pair().map_err(|source| ChildError::SocketPair { program, source })?;
        let mut command = Command::new(&path);
        command.arg(format!("--fd={}", theirs.as_raw_fd())).args(arguments);
        if !on_terminal(config) {
            // Its own process group: Ctrl-C at the terminal is for the guest or for us to act on,
            // and a device must not vanish before the guest has powered off.
            command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        }
        let (fd, parent) = (theirs.as_raw_fd(), getpid());
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; `settle` makes
        // three system calls and touches no heap. `theirs` is open in the child, as it is dropped
        // here only after `spawn` has returned.
        unsafe { command.pre_exec(move || settle(fd, parent)) };
        let process =
            command.spawn().map_err(|source| ChildError::Spawn { program: path, source })?;
        Ok(Some((Self { program, process }, ours)))
    }

    /// The program's name.
    pub fn program(&self) -> &'static str {
        self.program
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How it ended, if it has. Waits up to `patience` for it, as a dying process closes its
    /// socket before it can be reaped.
    pub fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Ok(None) | Err(_) => return None,
            }
        }
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

/// In the child, before the program starts: keep the socket open, and die with the parent.
fn settle(fd: RawFd, parent: Pid) -> io::Result<()> {
    // SAFETY: the descriptor is the socket's, open in this process until exec and beyond.
    let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before the request was in force.
    if getppid() != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

/// The backend beside our own executable, else the first on PATH.
fn find(program: &str) -> Option<PathBuf> {
    let beside = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let path = env::var_os("PATH").unwrap_or_default();
    let places = beside.into_iter().chain(env::split_paths(&path));
    places.map(|place| place.join(program)).find(|candidate| candidate.is_file())
}

fn on_terminal(config: &BackendConfig) -> bool {
    matches!(config, BackendConfig::Console(ConsoleConfig { to: ConsoleTo::Stdio, .. }))
}

/// `--name=value`, whatever bytes the value holds.
fn option(name: &str, value: impl Into<OsString>) -> OsString {
    let mut option = OsString::from(format!("--{name}="));
    option.push(value.into());
    option
}

fn blk(disk: &DiskConfig, cpus: u8) -> Vec<OsString> {
    let queues = disk.queues.unwrap_or(cpus.into());
    let mut arguments =
        vec![option("blk-file", &disk.path), option("num-queues", queues.to_string())];
    if disk.readonly {
        arguments.push("--read-only".into());
    }
    arguments.extend(disk.serial.as_ref().map(|serial| option("serial", serial)));
    arguments
}

fn net_arguments(net: &NetConfig) -> Vec<OsString> {
    let mut arguments = vec![option("tap", &net.tap)];
    arguments.extend(net.mac.as_ref().map(|mac| option("mac", mac)));
    arguments.extend(net.mtu.map(|mtu| option("mtu", mtu.to_string())));
    arguments
}

fn console_arguments(console: &ConsoleConfig) -> Vec<OsString> {
    vec![match &console.to {
        ConsoleTo::Stdio => "--stdio".into(),
        ConsoleTo::Pty(None) => "--pty".into(),
        ConsoleTo::Pty(Some(link)) => option("pty", link),
        ConsoleTo::File(path) => option("file", path),
        ConsoleTo::Socket(path) => option("unix", path),
    }]
}
