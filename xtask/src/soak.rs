//! `cargo xtask soak`: the tests of recovery with as many deaths, and those that move bytes with as
//! large transfers, as a release is held to. In everyday runs the same tests make do with less.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

/// How a test is told how often to kill.
pub(crate) const KILLS: &str = "ATOLL_KILLS";

/// How a test is told how much to move.
pub(crate) const TRANSFER: &str = "ATOLL_TRANSFER_MIB";

/// The modules of tests that count deaths or bytes.
const TESTS: &[&str] = &["recovery::", "systemd::", "network::traffic::", "console::a_named"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Deaths per test
    #[arg(long, value_name = "N", default_value_t = 100)]
    kills: u32,
    /// Size of each transfer, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    transfer: u32,
    /// Run only the tests whose names contain one of these
    filter: Vec<String>,
}

/// The task.
pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let mut myself = Command::new("/proc/self/exe");
    myself.args(["test", "--only-vm"]);
    myself.env(KILLS, args.kills.to_string()).env(TRANSFER, args.transfer.to_string());
    if args.filter.is_empty() {
        myself.args(TESTS);
    } else {
        myself.args(&args.filter);
    }
    let status = myself.status().context("cannot start this program again")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, Into::into))
}
