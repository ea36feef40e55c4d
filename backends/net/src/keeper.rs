//! A process of its own that keeps a network's sockets coming, so that this one never needs to start
//! or open anything after its set-up. What is said over them is the stream's business.
//!
//! ```text
//!  atoll-net ◄── a socket for each life of the peer ── keeper ── starts, or connects to ──► peer
//! ```

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use crate::stream::Connections;

/// A life shorter than this is a failed start, after which the next one waits.
const SHORT: Duration = Duration::from_secs(5);
/// The first such wait. Each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Where the sockets come from.
#[derive(Debug)]
pub(crate) struct Keeper(OwnedFd);

impl Keeper {
    /// Starts it: this program with other arguments.
    pub(crate) fn start(arguments: impl IntoIterator<Item = OsString>) -> io::Result<Self> {
        // Its end tells each side when the other is gone.
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Command::new("/proc/self/exe")
            .arg0("atoll-net")
            .args(arguments)
            .stdin(theirs)
            .stdout(Stdio::null())
            // Ctrl-C is for the guest or the VMM to act on.
            .process_group(0)
            .spawn()?;
        Ok(Self(ours))
    }
}

impl Connections for Keeper {
    /// # Errors
    /// That of the system; `UnexpectedEof` when the keeper is gone.
    fn next(&self) -> io::Result<Option<UnixStream>> {
        let mut byte = [0];
        let mut data = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!(RawFd);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let message = match recvmsg::<()>(self.0.as_raw_fd(), &mut data, Some(&mut space), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
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

    fn readable(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Hands a socket to the device process; an error when that is gone.
pub(crate) fn hand_over(socket: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [socket.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let data = [IoSlice::new(&[0])];
    let front = io::stdin();
    // Waits while nobody looks for the socket of the life before.
    sendmsg::<()>(front.as_fd().as_raw_fd(), &data, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Waits until `socket` is closed by either side, or the device process is gone. `false` when it is
/// gone.
pub(crate) fn await_end(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let front = io::stdin();
    loop {
        // Nothing is asked for but what always is: that it hung up.
        let fds = [front.as_fd(), socket];
        let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::empty()));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {
                let [front, _] = fds;
                return Ok(front.revents().is_none_or(|events| events.is_empty()));
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether there is still somebody to hand sockets to.
pub(crate) fn is_wanted() -> io::Result<bool> {
    let front = io::stdin();
    let mut fds = [PollFd::new(front.as_fd(), PollFlags::empty())];
    Ok(poll(&mut fds, PollTimeout::ZERO)? == 0)
}

/// The pauses between the lives of a peer: none is needed after a long one.
pub(crate) struct Pauses(Duration);

impl Pauses {
    pub(crate) fn new() -> Self {
        Self(FIRST_WAIT)
    }

    /// Waits after a life that began at `started`.
    pub(crate) fn wait(&mut self, started: Instant) {
        if started.elapsed() >= SHORT {
            self.0 = FIRST_WAIT;
        }
        std::thread::sleep(self.0);
        self.0 = self.0.saturating_mul(2).min(LONGEST_WAIT);
    }
}
