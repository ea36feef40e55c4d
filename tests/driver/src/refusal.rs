//! System calls that fail for a device process, as on an older kernel or under the filter of somebody else.

use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::Error;

/// What becomes of whoever makes such a call.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// It gets this error.
    Errno(i32),
    /// It is killed by SIGSYS.
    Kill,
}

/// Has `start` start a process where these system calls are refused.
///
/// # Errors
/// When there can be no such filter.
pub fn without<T: Send>(
    calls: &[libc::c_long],
    refusal: Refusal,
    start: impl FnOnce() -> T + Send,
) -> Result<T, Error> {
    let failed = |error| Error::system("making a filter", std::io::Error::other(error));
    let rules = calls.iter().map(|&call| (call, Vec::new())).collect();
    let action = match refusal {
        Refusal::Errno(errno) => SeccompAction::Errno(errno.unsigned_abs()),
        Refusal::Kill => SeccompAction::KillProcess,
    };
    let arch = std::env::consts::ARCH.try_into().map_err(failed)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).map_err(failed)?;
    let program: BpfProgram = filter.try_into().map_err(failed)?;
    // A filter belongs to a thread and to what it starts.
    let confined = || seccompiler::apply_filter(&program).map(|()| start());
    let started = thread::scope(|scope| scope.spawn(confined).join());
    let started = started.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    started.map_err(|error| Error::system("taking a filter", std::io::Error::other(error)))
}
