//! The `atoll` command: parse, pick, call.

use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use atoll::cli::{Cli, Command, Run};
use atoll::config::ConfigError;
use atoll::{attach, ctl, vm};
use clap::Parser;
use clap::error::ErrorKind;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Something failed.
const FAILED: u8 = 1;
/// Something was asked for wrongly, as clap has it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    log();
    match cli.command {
        Command::Run(run) => start(*run),
        Command::Ctl(ctl) => match ctl::run(&ctl) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if error.is_usage() => fail(&error, USAGE),
            Err(error) => fail(&error, FAILED),
        },
        Command::Console(console) => match attach::run(&console) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if error.is_usage() => fail(&error, USAGE),
            Err(error) => fail(&error, FAILED),
        },
    }
}

/// To standard error, as much as `RUST_LOG` asks for, else warnings; in the backends' format.
fn log() {
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
}

fn start(run: Run) -> ExitCode {
    let config = match run.into_vm() {
        Ok(config) => config,
        Err(error) => return fail(&error, USAGE),
    };
    match vm::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_usage() => fail(&error, USAGE),
        Err(error) => fail(&error, FAILED),
    }
}

/// What clap has to say: help as it is, a mistake as one sentence, as all are.
fn refuse(error: &clap::Error) -> ExitCode {
    let helps = [
        ErrorKind::DisplayHelp,
        ErrorKind::DisplayVersion,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
    ];
    if helps.contains(&error.kind()) {
        // Nobody is left to tell when the output is closed.
        let _closed = error.print();
        return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
    }
    // A section's own sentence names the option, and says what clap would only put more around.
    let own = error.source().and_then(|source| source.downcast_ref::<ConfigError>());
    let sentence = own.map_or_else(|| advice(&error.to_string()), ToString::to_string);
    eprintln!("atoll: {sentence}");
    ExitCode::from(USAGE)
}

/// One line of what clap says in several: the complaint, and its tip if it has one.
fn advice(report: &str) -> String {
    let complaint = report.split("\n\nUsage:").next().unwrap_or(report);
    let complaint = complaint.split("\n\nFor more").next().unwrap_or(complaint);
    let words = complaint.trim_start_matches("error: ").replace("tip: ", "- ");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn fail(error: &dyn Error, code: u8) -> ExitCode {
    eprintln!("atoll: {}", vm::sentence(error));
    ExitCode::from(code)
}
