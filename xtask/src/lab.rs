//! `cargo xtask lab`: a machine with a real /dev/kvm on any host, for running one command in it.
//!
//! The command finds:
//!
//! - Atoll's programs first on PATH (in `$ATOLL_BIN`), QEMU, qemu-storage-daemon, iperf3 and
//!   ordinary tools after them
//! - `/guest/{vmlinux,bzImage,initramfs.cpio.gz,root.ext4}`, the guest's files (`$ATOLL_GUEST`); it
//!   may write to them, and the next run has them as they were
//! - `/with/NAME`, for each file named by `--with`
//! - `/dev/scratch`, an empty 16 GiB virtio disk, and more than 10 GiB free below `/`
//! - /dev/kvm, /dev/net/tun, debugfs; it is root, and `$ATOLL_LAB` is set

pub(crate) mod run_disk;
pub(crate) mod terminal;

mod image;
mod machine;
mod session;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::packages;
use crate::workspace::{self, Profile};

pub(crate) use run_disk::Contents;
pub(crate) use session::{Outcome, Patience, Sinks};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Copy a file or folder to /with/ in the lab
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// The lab's memory
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_MEMORY)]
    memory: String,
    /// Build debug binaries instead of release ones
    #[arg(long)]
    debug: bool,
    /// Take Atoll's programs from a folder instead of building them
    #[arg(long, value_name = "FOLDER", conflicts_with = "debug")]
    bin_dir: Option<PathBuf>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Say how long the boot took
    #[arg(long, short)]
    verbose: bool,
    /// The command to run inside, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What the lab has when nobody says.
pub(crate) const DEFAULT_MEMORY: &str = "4G";

/// The task.
pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    packages::ensure()?;
    let programs = match &args.bin_dir {
        Some(folder) => workspace::programs_in(folder)?,
        None if args.debug => workspace::programs(Profile::Debug)?,
        None => workspace::programs(Profile::Release)?,
    };
    let contents = Contents {
        programs: &programs,
        files: &args.with,
        command: &args.command,
        environment: &[],
        terminal: terminal::size(),
    };
    let sinks = Sinks { stdout: Box::new(io::stdout()), stderr: Box::new(io::stderr()) };
    let patience = Patience { total: args.timeout.map(Duration::from_secs), ..Patience::default() };
    let outcome = run(&contents, &args.memory, sinks, patience)?;
    if args.verbose {
        eprintln!("lab: the command started {:.1} s after the machine", outcome.boot.as_secs_f64());
    }
    Ok(outcome.exit())
}

/// Boots the lab and runs the command in it. The packages must be there.
pub(crate) fn run(
    contents: &Contents<'_>,
    memory: &str,
    sinks: Sinks,
    patience: Patience,
) -> Result<Outcome> {
    let image = image::ensure()?;
    let disk = run_disk::make(contents)?;
    // Before any thread starts, so that all inherit it: a signal is an event of the session.
    session::ending_signals().thread_block().context("cannot block signals")?;
    let started = Instant::now();
    let machine = machine::start(&image, &disk, memory)?;
    session::follow(machine, contents.terminal.is_some(), sinks, started, patience)
}
