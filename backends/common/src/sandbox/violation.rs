//! The last words of a process that made a system call which its sandbox does not allow: which one
//! it was. Then it ends by SIGSYS, as its supervisor sees.

use std::io::{Cursor, Write};
use std::sync::OnceLock;

use libc::{c_int, c_void, siginfo_t};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use syscalls::Sysno;

use crate::args::program_name;

static PROGRAM: OnceLock<String> = OnceLock::new();

/// What the kernel says with the signal (sigaction(2), `SYS_SECCOMP`).
#[repr(C)]
struct Violation {
    _signal: [c_int; 3],
    _padding: c_int,
    _address: *const c_void,
    number: c_int,
    _arch: u32,
}

/// Lets violations be reported.
pub(super) fn report() -> nix::Result<()> {
    PROGRAM.get_or_init(program_name);
    // Once: when the handler returns the signal, raised again, has its default action.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESETHAND;
    let action = SigAction::new(SigHandler::SigAction(on_violation), flags, SigSet::empty());
    // SAFETY: the handler makes system calls, and formats into a buffer on its stack.
    unsafe { sigaction(Signal::SIGSYS, &action) }?;
    Ok(())
}

extern "C" fn on_violation(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel hands over what it says of the signal for as long as this runs, and with
    // this signal it is this. If somebody else sent it, the fields are other numbers.
    let number = unsafe { (*info.cast::<Violation>()).number };
    let name =
        usize::try_from(number).ok().and_then(Sysno::new).map_or("unknown", |call| call.name());
    let program = PROGRAM.get().map_or("", String::as_str);
    let mut line = [0; 256];
    let mut cursor = Cursor::new(&mut line[..]);
    let _cut = writeln!(
        cursor,
        "{program}: ended by its sandbox, which does not allow the system call {name} ({number}); \
         --no-sandbox runs without it"
    );
    let len = usize::try_from(cursor.position()).unwrap_or_default();
    let line = line.get(..len).unwrap_or_default();
    // SAFETY: the bytes are there. Nobody is left to tell when it fails.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
    // SAFETY: a system call; it ends this process when the handler returns.
    unsafe { libc::raise(libc::SIGSYS) };
}
