//! The options that every device process has, and how wrong ones are reported.

use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use serde::Serialize;

use crate::sandbox::User;

/// Exit code for a wrong command line.
pub(crate) const WRONG_USAGE: u8 = 2;

/// Options that every device process has (QEMU's "Backend program conventions").
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Front-end")]
pub struct Args {
    /// Unix socket to listen on for the front-end; its file is made, and removed at the end
    #[arg(long, value_name = "PATH", conflicts_with = "fd")]
    pub socket_path: Option<PathBuf>,

    /// Inherited descriptor: a socket connected to the front-end, or one that listens for it;
    /// without either option it is the one that systemd passes to a unit with a socket (LISTEN_FDS)
    #[arg(long, value_name = "N")]
    pub fd: Option<RawFd>,

    /// Unix socket for who wants to know and change how the device does: HTTP with JSON, where
    /// /metrics is for Prometheus; only its owner may open it
    #[arg(long, value_name = "PATH", conflicts_with = "control_fd")]
    pub control_socket: Option<PathBuf>,

    /// The same on an inherited descriptor: a connected socket, or one that listens
    #[arg(long, value_name = "N")]
    pub control_fd: Option<RawFd>,

    /// End when the front-end leaves, instead of waiting for the next one
    #[arg(long)]
    pub once: bool,

    /// User to become once all is open, with a group of its own or another (only as root)
    #[arg(long, value_name = "NAME|UID[:GID]", help_heading = "Sandbox")]
    pub user: Option<User>,

    /// Keep capabilities, and what system calls can do, once all is open
    #[arg(long, help_heading = "Sandbox")]
    pub no_sandbox: bool,

    /// Print what this program can do as JSON, and exit
    #[arg(long)]
    pub print_capabilities: bool,
}

/// What `--print-capabilities` says (QEMU's "Backend program conventions").
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Capabilities {
    /// The device type, such as `block` or `net`.
    #[serde(rename = "type")]
    pub device_type: &'static str,
    /// The optional features, each of which is an option of the program.
    pub features: &'static [&'static str],
}

/// Parses the command line. What is wrong with it is one sentence on standard error.
///
/// # Errors
/// The code to exit with: 2 for a wrong command line, 0 when help or the version was asked for.
pub fn parse<P: Parser>() -> Result<P, ExitCode> {
    P::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody is left to tell when standard output is closed.
            let _closed = error.print();
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{}: {}", program_name(), sentence(&error.to_string()));
            ExitCode::from(WRONG_USAGE)
        }
    })
}

/// The name of the running program, for messages.
pub(crate) fn program_name() -> String {
    std::env::args_os()
        .next()
        .map(PathBuf::from)
        .as_deref()
        .and_then(|path| path.file_name().map(OsStr::to_string_lossy).map(String::from))
        .unwrap_or_else(|| env!("CARGO_PKG_NAME").into())
}

/// One line of what `clap` says in several: the complaint, and its tip if it has one.
fn sentence(report: &str) -> String {
    let about = report.split("\n\nUsage:").next().unwrap_or(report);
    let about = about.split("\n\nFor more information").next().unwrap_or(about);
    let words = about.trim_start_matches("error: ").replace("tip: ", "- ");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "args_test.rs"]
mod tests;
