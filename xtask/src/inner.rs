//! This program again, where guests run: on this machine, or as the lab's command. What it does
//! there is in `demo` and `bench`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::kvm::Place;
use crate::lab::{self, Contents, Patience, Sinks, terminal};
use crate::{bench, demo};

/// What there is to do where guests run.
#[derive(Clone, Copy, Subcommand)]
pub(crate) enum Act {
    /// Boot the demo's guest with its console here
    Shell,
    /// Boot the demo's guest and show it
    Tour,
    /// Time a disk's requests
    Blk,
    /// Time boots
    Boot,
    /// Time consoles, from guests
    Console,
    /// Time consoles, from guests of a few instructions
    ConsoleBare,
    /// Time consoles, from a software driver
    ConsoleDriver,
    /// Time a guest's requests to its disk
    Fio,
    /// Time a network card's frames
    Net,
    /// Time a disk's requests by how long its queues are polled
    Polling,
    /// Time recoveries
    Recovery,
    /// Time stalls
    Stall,
    /// Time a guest's network card
    Traffic,
}

impl Act {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Tour => "tour",
            Self::Blk => "blk",
            Self::Boot => "boot",
            Self::Console => "console",
            Self::ConsoleBare => "console-bare",
            Self::ConsoleDriver => "console-driver",
            Self::Fio => "fio",
            Self::Net => "net",
            Self::Polling => "polling",
            Self::Recovery => "recovery",
            Self::Stall => "stall",
            Self::Traffic => "traffic",
        }
    }
}

/// The inner task.
pub(crate) fn main(act: Act) -> Result<ExitCode> {
    match act {
        Act::Shell => demo::shell(),
        Act::Tour => demo::tour::play(),
        Act::Blk => bench::blk::measure(),
        Act::Boot => bench::boot::measure(),
        Act::Console => bench::console::measure(),
        Act::ConsoleBare => bench::console::bare::measure(),
        Act::ConsoleDriver => bench::console::driver::measure(),
        Act::Fio => bench::fio::measure(),
        Act::Net => bench::net::measure(),
        Act::Polling => bench::blk::measure_polling(),
        Act::Recovery => bench::recovery::measure(),
        Act::Stall => bench::stall::measure(),
        Act::Traffic => bench::traffic::measure(),
    }
}

/// Does it where guests run, with the programs first on PATH.
pub(crate) fn run(act: Act, place: &Place, programs: &[PathBuf], guest: &Path) -> Result<ExitCode> {
    match place {
        Place::Here => here(act, programs, guest),
        Place::Lab(_) => in_lab(act, programs),
    }
}

fn here(act: Act, programs: &[PathBuf], guest: &Path) -> Result<ExitCode> {
    let folder = programs.first().and_then(|path| path.parent()).context("nothing was built")?;
    let mut myself = Command::new("/proc/self/exe");
    let status = myself
        .args(["inner", act.name()])
        .env("ATOLL_BIN", folder)
        .env("ATOLL_GUEST", guest)
        .status()
        .context("cannot start this program again")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, Into::into))
}

fn in_lab(act: Act, programs: &[PathBuf]) -> Result<ExitCode> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let myself = folder.path().join("xtask");
    fs::copy("/proc/self/exe", &myself).context("cannot copy this program")?;
    let command = ["/with/xtask", "inner", act.name()].map(str::to_owned);
    let contents = Contents {
        programs,
        files: &[myself],
        command: &command,
        environment: &[],
        terminal: if matches!(act, Act::Shell) { terminal::size() } else { None },
    };
    let sinks = Sinks { stdout: Box::new(io::stdout()), stderr: Box::new(io::stderr()) };
    Ok(lab::run(&contents, lab::DEFAULT_MEMORY, sinks, Patience::default())?.exit())
}
