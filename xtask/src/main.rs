//! `cargo xtask`: what developers run. Parses, picks, calls.

#![forbid(unsafe_code)]

mod bench;
mod cache;
mod command;
mod debian;
mod demo;
mod dist;
mod guest;
mod initramfs;
mod inner;
mod kernel;
mod kvm;
mod lab;
mod packages;
mod peers;
mod soak;
mod test;
mod workspace;

use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What Atoll's developers run", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure Atoll beside others
    #[command(subcommand)]
    Bench(bench::Measure),
    /// Boot the lab, a machine with a real /dev/kvm, and run a command inside
    Lab(lab::Args),
    /// Boot a Debian guest and hand over its console, or play a tour of it
    Demo(demo::Args),
    /// Run every test: unit, wire and VM
    Test(test::Args),
    /// Run the tests of recovery with many more deaths
    Soak(soak::Args),
    /// Do what CI does: format, lints, tests, the tour
    Ci,
    /// Make what users install: a tree, and a Debian package
    Dist(dist::Args),
    /// Install the Debian packages that the tasks need
    Packages,
    /// Make the guest's files in target/guest and say where they are
    Guest,
    /// What another task does where guests run
    #[command(hide = true, subcommand)]
    Inner(inner::Act),
}

fn main() -> ExitCode {
    match pick(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn pick(task: Task) -> Result<ExitCode> {
    match task {
        Task::Lab(args) => lab::main(&args),
        Task::Demo(args) => demo::main(&args),
        Task::Bench(measure) => bench::main(measure),
        Task::Inner(act) => inner::main(act),
        Task::Test(args) => test::main(&args),
        Task::Dist(args) => dist::main(&args),
        Task::Soak(args) => soak::main(&args),
        Task::Ci => {
            command::run(Command::new("bash").arg(workspace::root().join(".ci/run")))?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Packages => {
            packages::ensure()?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Guest => {
            packages::ensure()?;
            println!("{}", guest::ensure()?.display());
            Ok(ExitCode::SUCCESS)
        }
    }
}
