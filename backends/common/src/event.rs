//! The event descriptors that a front-end hands over: kick, call and error.

use std::fs::File;
use std::io::{self, Read, Write};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Takes a front-end's descriptor. It must never block the thread of a ring, so it is made not to.
pub(crate) fn accept(file: File) -> io::Result<File> {
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(file)
}

/// Signals an event. When that fails the counter is full, so that the event is pending anyway, or
/// the peer broke its own descriptor.
pub(crate) fn signal(mut event: &File) {
    let _unheard = event.write(&1u64.to_ne_bytes());
}

/// Takes the event back, pending or not.
///
/// # Errors
/// When it is not an event descriptor, or its other end was closed.
pub(crate) fn take(mut event: &File) -> io::Result<()> {
    match event.read(&mut [0; 8]) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// Whether it counts, so that every write wakes who waits for it, also when what was written before has
/// not been taken: true of event descriptors. Of pipes it depends on the kernel's version, and they
/// fill up.
pub(crate) fn is_counter(mut event: &File) -> bool {
    // A counter is read whole or not at all; who passes bytes on has no objection to passing none.
    event.read(&mut []).is_err_and(|error| error.raw_os_error() == Some(Errno::EINVAL as i32))
}
