//! The caller's terminal in raw mode, put back on every way out. Moves no bytes.

use std::io::{IsTerminal, stdin, stdout};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Raw mode, for as long as this value lives.
pub(super) struct Raw(Termios);

impl Raw {
    /// Switches the terminal behind standard input.
    pub(super) fn enter() -> Result<Self> {
        let before = tcgetattr(stdin()).context("cannot read the terminal's mode")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).context("cannot set the terminal's mode")?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone, and then there is nothing to put back.
        let _ = tcsetattr(stdin().as_fd(), SetArg::TCSADRAIN, &self.0);
    }
}

/// Rows and columns, when a person sits at both ends.
pub(crate) fn size() -> Option<(u16, u16)> {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return None;
    }
    let shown = Command::new("stty").arg("size").stdin(Stdio::inherit()).output().ok()?;
    let text = String::from_utf8(shown.stdout).ok()?;
    let (rows, columns) = text.trim().split_once(' ')?;
    match (rows.parse().ok()?, columns.parse().ok()?) {
        (0, _) | (_, 0) => Some((24, 80)),
        size => Some(size),
    }
}
