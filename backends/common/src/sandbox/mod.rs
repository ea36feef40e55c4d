//! What a device process can do no more once it is set up: open files, start programs, gain
//! privileges, make system calls that its job does not need. What its job needs beyond the common
//! list is the device's to say.
//!
//! Everything is done by the main thread while it is the only one, so that each later thread
//! inherits it: Landlock and capabilities belong to threads, not to processes.

mod common;
mod filter;
mod own_name;
mod paths;
mod system_call;
pub(crate) mod trespass;
mod user;
mod violation;

use std::fs;
use std::io;

use caps::{CapSet, errors::CapsError};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::geteuid;

use crate::args::Args;

pub use own_name::{OwnName, bind};
pub use syscalls::Sysno;
pub use system_call::SystemCall;
pub use user::User;

/// The process can't give up what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error("--user takes a start as root, which alone may become another user")]
    NotRoot,
    #[error("cannot become user {uid} of group {gid}")]
    User { uid: u32, gid: u32, source: Errno },
    #[error("cannot give up privileges; --no-sandbox keeps them")]
    Privileges(#[source] Errno),
    #[error("cannot give up capabilities; --no-sandbox keeps them")]
    Capabilities(#[source] CapsError),
    #[error("cannot look at the threads of this process")]
    Look(#[source] io::Error),
    #[error(
        "{count} threads run before the sandbox is entered, and it would only hold one of them"
    )]
    Threads { count: usize },
    #[error("cannot enter the Landlock domain; --no-sandbox runs without")]
    Paths(#[source] landlock::RulesetError),
    #[error("cannot protect the names of this process's own files")]
    Names(#[source] Errno),
    #[error("cannot install the filter of system calls; --no-sandbox runs without")]
    Filter(#[source] seccompiler::Error),
    #[error("the filter of system calls is broken")]
    Rules(#[source] seccompiler::BackendError),
}

impl SandboxError {
    /// Whether another command line would help.
    pub(crate) fn is_wrong_usage(&self) -> bool {
        matches!(self, Self::NotRoot)
    }
}

/// Finds out before anything is opened whether [`enter`] can do what the options say.
pub(crate) fn check(args: &Args) -> Result<(), SandboxError> {
    if args.user.is_some() && !geteuid().is_root() {
        return Err(SandboxError::NotRoot);
    }
    Ok(())
}

/// Gives up all that is not needed from now on. `needed` is what the device calls beyond the
/// common list.
pub(crate) fn enter(args: &Args, needed: Vec<SystemCall>) -> Result<(), SandboxError> {
    let privileged = geteuid().is_root();
    if let Some(user) = args.user {
        user.become_it()?;
    }
    if args.no_sandbox {
        return Ok(());
    }
    let threads = fs::read_dir("/proc/self/task").map_err(SandboxError::Look)?.count();
    if threads != 1 {
        return Err(SandboxError::Threads { count: threads });
    }
    prctl::set_no_new_privs().map_err(SandboxError::Privileges)?;
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        // A service manager may have seen to it, and forbid to change what is as it should be.
        if !caps::read(None, set).map_err(SandboxError::Capabilities)?.is_empty() {
            caps::clear(None, set).map_err(SandboxError::Capabilities)?;
        }
    }
    if privileged {
        // Neither other processes of this user nor a core file get at guest memory. A process that
        // was started without privileges stays its user's to look into: nothing of it is beyond
        // what that user may do anyway.
        prctl::set_dumpable(false).map_err(SandboxError::Privileges)?;
    }
    let names = own_name::seal().map_err(SandboxError::Names)?;
    paths::restrict(&names)?;
    violation::report().map_err(SandboxError::Privileges)?;
    if trespass::is_unfiltered() {
        return Ok(());
    }
    filter::install(&names, needed)
}

#[cfg(test)]
#[path = "sandbox_test.rs"]
mod tests;
