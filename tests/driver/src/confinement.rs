//! What a process has given up, as the kernel tells.

use std::fs;
use std::io;

use crate::{Error, Process};

/// The privileges of a process, or of one of its threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// How it filters system calls: 0 not at all, 2 by a program.
    pub seccomp: u32,
    /// Whether executing a program gives it no privileges.
    pub no_new_privileges: bool,
    /// Effective, permitted and inheritable capabilities, together.
    pub capabilities: u64,
    /// The effective user and group.
    pub user: (u32, u32),
}

impl Process {
    /// What each of its threads has given up.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn confinement(&self) -> Result<Vec<Confinement>, Error> {
        let failed = |source| Error::system("reading /proc", source);
        let mut found = Vec::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.id())).map_err(failed)? {
            match task.and_then(|task| fs::read_to_string(task.path().join("status"))) {
                Ok(status) => found.push(Confinement::read(&status)),
                // A thread that has ended since; the process has not, or it had no tasks to list.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(found)
    }
}

/// Whether a thread is no more: its file can't be found, or not be read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

impl Confinement {
    fn read(status: &str) -> Self {
        let field = |name: &str, column| {
            let mut lines = status.lines().filter_map(|line| line.strip_prefix(name));
            lines.next().and_then(|line| line.split_whitespace().nth(column)).unwrap_or_default()
        };
        let number = |name, column| field(name, column).parse().unwrap_or(u32::MAX);
        let set = |name| u64::from_str_radix(field(name, 0), 16).unwrap_or(u64::MAX);
        Self {
            seccomp: number("Seccomp:", 0),
            no_new_privileges: number("NoNewPrivs:", 0) == 1,
            capabilities: set("CapEff:") | set("CapPrm:") | set("CapInh:"),
            user: (number("Uid:", 1), number("Gid:", 1)),
        }
    }
}
