//! The `atoll` command: parse, pick, call.

use std::error::Error;
use std::process::ExitCode;

use atoll::cli::{Cli, Command, Run};
use atoll::vm;
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Something failed.
const FAILED: u8 = 1;
/// Something was asked for wrongly, as clap has it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| "warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    match cli.command {
        Command::Run(run) => start(*run),
    }
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

/// One sentence, from what was being done to what went wrong.
fn fail(error: &dyn Error, code: u8) -> ExitCode {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        sentence.push_str(": ");
        sentence.push_str(&error.to_string());
        cause = error.source();
    }
    eprintln!("atoll: {sentence}");
    ExitCode::from(code)
}
