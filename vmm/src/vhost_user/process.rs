//! The process behind a connection: who it is, and whether it still lives.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};

use super::peer::PeerSource;
use super::report::PeerIdentity;

/// Systemd's, or what takes its place: it listens for others, and never ends.
const INIT: u32 = 1;

/// A process, not to be mistaken for a later one of the same number.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    /// `/proc/PID/stat`, which can't be read any more when the process is gone.
    stat: File,
}

impl Process {
    /// The process of an identity, if it is one that will end.
    pub(super) fn of(identity: &PeerIdentity) -> Option<Self> {
        let pid = identity.pid.filter(|&pid| pid != INIT)?;
        Some(Self { pid, stat: File::open(format!("/proc/{pid}/stat")).ok()? })
    }

    /// Whether it can still write to memory that it has mapped.
    pub(super) fn lives(&self) -> bool {
        let mut text = [0; 256];
        let read = self.stat.read_at(&mut text, 0).unwrap_or(0);
        // proc_pid_stat(5): the state comes after the command, which is in parentheses and may
        // hold any byte.
        let text = text.get(..read).unwrap_or_default();
        let mut fields = text.rsplit(|&byte| byte == b')');
        let state = fields.next().and_then(|fields| fields.get(1));
        !matches!(state, None | Some(b'Z' | b'X'))
    }

    /// Whether `identity` is somebody else than this process.
    pub(super) fn is_not(&self, identity: &PeerIdentity) -> bool {
        identity.pid != Some(self.pid)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }
}

/// Who is at the other end of a connection that `source` gave.
pub(super) fn identify(source: &dyn PeerSource, stream: &UnixStream) -> PeerIdentity {
    let pid = source.pid().or_else(|| peer_pid(stream));
    PeerIdentity {
        name: source.name(),
        pid,
        command: pid.and_then(command),
        socket: source.socket().map(Path::to_owned),
        exit: None,
    }
}

/// The process at the other end of `socket`, as the kernel has it (SO_PEERCRED): who connected it,
/// or who made it listen. None when that is nobody else.
fn peer_pid(socket: &UnixStream) -> Option<u32> {
    let credentials = getsockopt(socket, sockopt::PeerCredentials).ok()?;
    // 0 is a process outside our namespace. Ours: a socket pair.
    u32::try_from(credentials.pid()).ok().filter(|&pid| pid != 0 && pid != std::process::id())
}

/// The command of a process, as the kernel has it.
fn command(pid: u32) -> Option<String> {
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(comm.trim_end().to_owned())
}

#[cfg(test)]
#[path = "process_test.rs"]
mod tests;
