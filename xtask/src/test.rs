//! `cargo xtask test`: every test there is. Unit and wire tests run on this machine; those that
//! boot a stock kernel run where it can be booted. The tests themselves are elsewhere.

mod in_lab;
mod report;

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::shown;
use crate::kvm::{self, Place};
use crate::workspace::{self, Profile};
use crate::{guest, packages, peers};
use report::{Reader, Report};

/// The integration test that boots stock kernels.
const VM: &str = "vm";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the tests whose names contain one of these
    filter: Vec<String>,
    /// Leave out the tests that boot a stock kernel
    #[arg(long)]
    no_vm: bool,
    /// Run only the tests that boot a stock kernel
    #[arg(long, conflicts_with = "no_vm")]
    only_vm: bool,
}

/// An executable full of tests.
struct Suite {
    /// Its package and target.
    name: String,
    target: String,
    executable: PathBuf,
    /// Cargo starts tests in their package's folder.
    folder: PathBuf,
}

/// The task.
pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    packages::ensure_with(if args.only_vm { &[] } else { packages::DPDK })?;
    let guest = guest::ensure()?;
    let (vm, native): (Vec<_>, Vec<_>) =
        suites()?.into_iter().partition(|suite| suite.target == VM);

    let mut report = Report::default();
    if !args.only_vm {
        for suite in &native {
            report.add(run_here(suite, &args.filter, &[])?);
        }
    }
    if !args.no_vm {
        let mut programs = workspace::programs(Profile::Release)?;
        let place = kvm::place(&programs, &guest)?;
        programs.extend(peers::ensure()?);
        for suite in &vm {
            report.add(match &place {
                Place::Here => run_here(suite, &args.filter, &programs)?,
                Place::Lab(_) => in_lab::run(suite, &args.filter, &programs)?,
            });
        }
    }
    sum_up(&report);
    Ok(if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds all tests, and the programs that they start.
fn suites() -> Result<Vec<Suite>> {
    workspace::built(workspace::cargo().args(["build", "--workspace", "--bins"]))?;
    let messages = workspace::built(workspace::cargo().args(["test", "--workspace", "--no-run"]))?;
    let mut suites: Vec<_> = messages.iter().filter_map(suite).collect();
    suites.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(suites)
}

/// What cargo says of an executable full of tests.
fn suite(message: &Value) -> Option<Suite> {
    let executable = message.get("executable")?.as_str()?;
    if !message.get("profile")?.get("test")?.as_bool()? {
        return None;
    }
    let target = message.get("target")?.get("name")?.as_str()?;
    let kind = message.get("target")?.get("kind")?.get(0)?.as_str()?;
    let folder = PathBuf::from(message.get("manifest_path")?.as_str()?).parent()?.to_path_buf();
    let package = message.get("package_id")?.as_str()?;
    // `path+file:///…/backends/blk#atoll-blk@0.1.0`, or `…/vmm#0.1.0` where folder and name agree.
    let package = package.rsplit(['#', '/']).next()?.split('@').next()?;
    let package = if package.starts_with(|c: char| c.is_ascii_digit()) {
        folder.file_name()?.to_str()?
    } else {
        package
    };
    let name = match kind {
        "lib" => package.to_owned(),
        "bin" => format!("{package} (main)"),
        _ => format!("{package}::{target}"),
    };
    Some(Suite { name, target: target.to_owned(), executable: executable.into(), folder })
}

/// Runs a suite on this machine, with the programs first on its PATH.
fn run_here(suite: &Suite, filter: &[String], programs: &[PathBuf]) -> Result<Report> {
    headline(&suite.name);
    let mut command = Command::new(&suite.executable);
    command.arg("--show-output").args(filter).current_dir(&suite.folder);
    let bin = tempfile::tempdir().context("cannot make a temporary folder")?;
    if !programs.is_empty() {
        // Guests have the machine to themselves, one after the other.
        command.arg("--test-threads=1");
        for program in programs {
            if let Some(name) = program.file_name() {
                std::os::unix::fs::symlink(program, bin.path().join(name))?;
            }
        }
        command.env("ATOLL_BIN", bin.path());
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", shown(&command)))?;
    let mut reader = Reader::new(&suite.name);
    if let Some(stdout) = child.stdout.take() {
        echo(stdout, |line| reader.line(line));
    }
    let status = child.wait()?;
    Ok(reader.finish(&format!("ended early: {status}")))
}

/// Prints the lines that `wanted` wants, as they come; the last one may be unfinished.
fn echo(mut from: impl Read, mut wanted: impl FnMut(&str) -> bool) {
    let mut out = io::stdout().lock();
    let (mut buffer, mut line, mut shown) = ([0; 4096], Vec::new(), 0);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        for &byte in buffer.iter().take(count) {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            // Whoever read us may have gone; the tests still run to their end.
            if wanted(&String::from_utf8_lossy(&line)) {
                let rest = line.get(shown..).unwrap_or_default();
                let _ = out.write_all(rest).and_then(|()| out.write_all(b"\n"));
            }
            line.clear();
            shown = 0;
        }
        // A test that takes its time is named while it runs.
        if shown == 0 && line.ends_with(b" ... ") {
            shown = line.len();
            let _ = out.write_all(&line);
        }
        let _ = out.flush();
    }
    // The name of a test that has not come to its end.
    if !line.is_empty() && wanted(&String::from_utf8_lossy(&line)) {
        let rest = line.get(shown..).unwrap_or_default();
        let _ = out.write_all(rest).and_then(|()| out.write_all(b"\n"));
    }
}

fn headline(name: &str) {
    println!("── {name}");
}

fn sum_up(report: &Report) {
    println!("──");
    for skipped in &report.skipped {
        println!("skipped: {skipped}");
    }
    for test in &report.second_try {
        println!("passed at the second try only: {test}");
    }
    for failed in &report.failed {
        println!("failed: {failed}");
    }
    println!("{report}");
}
