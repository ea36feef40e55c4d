//! `passt`, the user-mode network: found, started, and started again when it ends. All end with
//! `atoll-net`: passt when its socket closes, its keeper when nobody takes the next.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use crate::Forward;
use crate::keeper::{Keeper, Pauses, hand_over};

const PASST: &str = "passt";
/// The hidden option with which this program is started as the keeper.
const KEEPER: &str = "--keep-passt";
/// What is kept of what passt says.
const COMPLAINT: u64 = 4096;

/// The user-mode network can't be had.
#[derive(Debug, thiserror::Error)]
pub enum PasstError {
    /// It is not installed.
    #[error("--user-net needs the program passt; install the package passt, or use --tap")]
    Missing,
    /// The process that keeps it does not start.
    #[error("cannot start the process that keeps passt")]
    Keeper(#[source] io::Error),
}

/// Starts what keeps passt running, with the ports to forward to the guest.
pub(crate) fn start(forwards: &[Forward]) -> Result<Keeper, PasstError> {
    find().ok_or(PasstError::Missing)?;
    let forwards = forwards.iter().map(|forward| format!("--hostfwd={forward}").into());
    let arguments = std::iter::once(KEEPER.into()).chain(forwards);
    Keeper::start(arguments).map_err(PasstError::Keeper)
}

/// The keeper's `main`: keeps passt running until nobody takes its sockets any more.
///
/// # Errors
/// When the system has no more sockets, or passt is gone.
pub fn keep(forwards: &[Forward]) -> io::Result<()> {
    let mut pauses = Pauses::new();
    let mut told = None;
    loop {
        let (ours, theirs) = UnixStream::pair()?;
        let started = Instant::now();
        let mut passt = Command::new(PASST)
            .args(["--foreground", "--quiet", "--fd", "0"])
            .args(arguments(forwards))
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let handed = hand_over(ours.as_fd());
        // passt ends when the last copy of the other end closes.
        drop(ours);
        let complaint = passt.stderr.take().map(last_words).unwrap_or_default();
        let status = passt.wait()?;
        if handed.is_err() {
            return Ok(());
        }
        if !status.success() && told.as_ref() != Some(&complaint) {
            complain(status, &complaint);
            told = Some(complaint);
        }
        pauses.wait(started);
    }
}

fn arguments(forwards: &[Forward]) -> Vec<OsString> {
    let both = forwards.iter().map(|forward| (forward.option(), forward.specification()));
    let mut arguments: Vec<OsString> =
        both.flat_map(|(option, specification)| [option.into(), specification.into()]).collect();
    // Nothing but what was asked for, whatever passt's own default is.
    for option in ["--tcp-ports", "--udp-ports"] {
        if !forwards.iter().any(|forward| forward.option() == option) {
            arguments.extend([option.into(), "none".into()]);
        }
    }
    arguments
}

/// Reads until passt ends, and keeps the beginning.
fn last_words(mut stderr: impl Read) -> String {
    let mut said = Vec::new();
    // What can't be read is not said.
    let _read = stderr.by_ref().take(COMPLAINT).read_to_end(&mut said);
    let _rest = io::copy(&mut stderr, &mut io::sink());
    let said = String::from_utf8_lossy(&said).into_owned();
    // What a passt without a system log, or with root's rights, says each time.
    let usual = |line: &str| line.starts_with("Failed to send") || line.starts_with("Don't run as");
    let lines: Vec<_> = said.lines().filter(|line| !line.is_empty() && !usual(line)).collect();
    lines.join("; ")
}

/// Says why passt ended; the same reason is not worth a second line.
fn complain(status: ExitStatus, complaint: &str) {
    let said = if complaint.is_empty() { String::new() } else { format!(": {complaint}") };
    eprintln!("atoll-net: passt ended ({status}) and is started again{said}");
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|place| place.join(PASST)).find(|file| file.is_file())
}

#[cfg(test)]
#[path = "passt_test.rs"]
mod tests;
