//! `passt`, the user-mode network: started, and started again when it ends, by a process of its
//! own, so that this one never needs to start anything after its set-up. What is said over the
//! sockets is the stream's business.
//!
//! ```text
//!  atoll-net ◄── a socket for each life of passt ── keeper ── starts, awaits ──► passt
//! ```
//!
//! All end with `atoll-net`: passt when its socket closes, the keeper when nobody takes the next.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::Forward;

const PASST: &str = "passt";
/// The hidden option with which this program is started as the keeper.
pub(crate) const KEEPER: &str = "--keep-passt";
/// A life shorter than this is a failed start, after which the next one waits.
const SHORT: Duration = Duration::from_secs(5);
/// The first such wait. Each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
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

/// Where the sockets come from.
#[derive(Debug)]
pub(crate) struct Keeper(UnixDatagram);

impl Keeper {
    /// Starts it, with the ports to forward to the guest.
    pub(crate) fn start(forwards: &[Forward]) -> Result<Self, PasstError> {
        find().ok_or(PasstError::Missing)?;
        let (ours, theirs) = UnixDatagram::pair().map_err(PasstError::Keeper)?;
        ours.set_nonblocking(true).map_err(PasstError::Keeper)?;
        Command::new("/proc/self/exe")
            .arg0("atoll-net")
            .arg(KEEPER)
            .args(forwards.iter().map(|forward| format!("--hostfwd={forward}")))
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            // Ctrl-C is for the guest or the VMM to act on.
            .process_group(0)
            .spawn()
            .map_err(PasstError::Keeper)?;
        Ok(Self(ours))
    }

    /// The socket of a passt that was started since, if there is one.
    ///
    /// # Errors
    /// That of the system; `UnexpectedEof` when the keeper is gone.
    pub(crate) fn next(&self) -> io::Result<Option<UnixStream>> {
        let mut byte = [0];
        let mut data = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!(RawFd);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let message = match recvmsg::<()>(self.0.as_raw_fd(), &mut data, Some(&mut space), flags) {
            Ok(message) => message,
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let descriptors = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
            _ => None,
        });
        let descriptor = descriptors.ok_or(io::ErrorKind::UnexpectedEof)?;
        // SAFETY: the kernel made this descriptor for us just now, and nobody else knows it.
        let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        stream.set_nonblocking(true)?;
        Ok(Some(stream))
    }
}

impl AsFd for Keeper {
    /// Readable when there is another socket.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The keeper's `main`: keeps passt running until nobody takes its sockets any more.
///
/// # Errors
/// When the system has no more sockets, or passt is gone.
pub fn keep(forwards: &[Forward]) -> io::Result<()> {
    let front = io::stdin();
    let mut wait = FIRST_WAIT;
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
        let handed = hand_over(front.as_fd(), &ours);
        // passt ends when the last copy of the other end closes.
        drop(ours);
        let complaint = passt.stderr.take().map(last_words).unwrap_or_default();
        let status = passt.wait()?;
        if handed.is_err() {
            return Ok(());
        }
        if started.elapsed() >= SHORT {
            wait = FIRST_WAIT;
        }
        complain(status, &complaint);
        thread::sleep(wait);
        wait = wait.saturating_mul(2).min(LONGEST_WAIT);
    }
}

fn hand_over(front: BorrowedFd<'_>, socket: &UnixStream) -> io::Result<()> {
    let descriptors = [socket.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let data = [IoSlice::new(&[0])];
    // Waits while nobody looks for the socket of the life before.
    sendmsg::<()>(front.as_raw_fd(), &data, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
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

fn complain(status: ExitStatus, complaint: &str) {
    if status.success() {
        return;
    }
    let said = if complaint.is_empty() { String::new() } else { format!(": {complaint}") };
    eprintln!("atoll-net: passt ended ({status}) and is started again{said}");
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|place| place.join(PASST)).find(|file| file.is_file())
}
