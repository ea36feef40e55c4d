//! The event descriptors that a front-end hands over: kick, call and error.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};

use crate::buffers::plainly;

/// How long who signals an event may take before it is looked at whether there is room in it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// Of a thread that signals.
const STACK: usize = 64 * 1024;

/// Takes a front-end's descriptor. It must never block the thread of a ring, so it is made not to.
pub(crate) fn accept(file: File) -> io::Result<File> {
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(file)
}

/// Takes a front-end's descriptor that is to be signalled. It has to count, as those do that interrupt a
/// guest: of everything else it would be the other end's doing whether a thread that signals comes back.
pub(crate) fn accept_signal(file: File) -> io::Result<File> {
    match is_counter(&file)? {
        true => accept(file),
        false => Err(io::Error::other("it is no event descriptor (eventfd(2))")),
    }
}

/// Makes room in an event that can't count any further, in which somebody may wait to signal it: the
/// front-end can fill its own event and have it block. No signal is lost, as one is due.
pub(crate) fn make_room(event: &File) {
    let mut fds = [PollFd::new(event.as_fd(), PollFlags::POLLOUT)];
    let looked = poll(&mut fds, PollTimeout::ZERO);
    let has_room =
        fds.iter().filter_map(PollFd::revents).any(|now| now.contains(PollFlags::POLLOUT));
    if looked.is_ok() && !has_room {
        // Somebody else may have made room meanwhile, which does as well.
        let _room = take(event);
    }
}

/// Signals an event. When that fails the counter is full, so that the event is pending anyway, or
/// the peer broke its own descriptor.
pub(crate) fn signal(event: &File) {
    let one = 1u64;
    // SAFETY: the kernel only reads the eight bytes of `one`.
    let _unheard = plainly(|| unsafe {
        libc::syscall(libc::SYS_write, event.as_raw_fd(), &raw const one, size_of_val(&one))
    });
}

/// Signals an event from a thread that has to go on, whatever the front-end makes of how the event is
/// open.
///
/// # Errors
/// When there is no thread to do it.
pub(crate) fn signal_and_go_on(event: &Arc<File>) -> io::Result<()> {
    let (waits, over) = mpsc::channel::<Infallible>();
    let theirs = Arc::clone(event);
    let signals = move || {
        signal(&theirs);
        drop(waits);
    };
    let thread = thread::Builder::new().name("signal".into()).stack_size(STACK).spawn(signals)?;
    while over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
        make_room(event);
    }
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Ok(())
}

/// Takes the event back, pending or not.
///
/// # Errors
/// When it is not an event descriptor, or its other end was closed.
pub(crate) fn take(event: &File) -> io::Result<()> {
    match read_now(event, &mut [0; 8]) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether it counts, so that every write wakes who waits for it, also when what was written before has
/// not been taken: true of event descriptors. Of pipes it depends on the kernel's version, and they
/// fill up.
///
/// # Errors
/// As for [`take`].
pub(crate) fn is_counter(event: &File) -> io::Result<bool> {
    // What can't be read at all says the same of this as a counter does of what is next.
    read_now(event, &mut [])?;
    // A counter is read whole or not at all. Who passes bytes on may lose one that was pending: what
    // counts is that there was any, and whoever waits for it first looks at its ring.
    match read_now(event, &mut [0]) {
        Err(Errno::EINVAL) => Ok(true),
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Reads what is there and never waits. O_NONBLOCK alone would not do: it belongs to the open file, whose
/// flags the front-end may change at any time, and a thread that reads can't be told to stop.
fn read_now(event: &File, bytes: &mut [u8]) -> nix::Result<usize> {
    let part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: the descriptor is open as long as `event`; `part` is the one vector that is told of and
    // describes `bytes`, which is borrowed mutably for the call, so nobody else reaches it.
    let read = unsafe { libc::preadv2(event.as_raw_fd(), &part, 1, -1, libc::RWF_NOWAIT) };
    match Errno::result(read) {
        // Sockets have a way of their own, which is older (the other came with Linux 6.5). What has
        // neither can't be an event.
        Err(Errno::EOPNOTSUPP) => recv(event.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT),
        // Not negative, so nothing is lost.
        read => read.map(isize::unsigned_abs),
    }
}

#[cfg(test)]
#[path = "event_test.rs"]
mod tests;
