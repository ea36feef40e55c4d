//! Runs a suite in the lab, and what failed there once more in a fresh boot of it.
//!
//! The lab's processor is emulated, and QEMU 7.2's emulation of nested virtualization at times
//! resumes the lab's kernel with the state of a guest, or the other way round: the guest stalls, or
//! the lab's kernel dies. `docs/lab.md` has the evidence. A test that fails for that reason passes
//! in a fresh boot; one that fails twice has failed. Each first failure is shown all the same.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::report::{Reader, Report, Verdict};
use super::{Suite, echo, headline};
use crate::command::shown;
use crate::lab::{self, Contents, Patience, Sinks};
use crate::soak;

/// How long one boot of the lab may take for its tests; and how long one test, which waits five
/// minutes at most for any one thing.
const PATIENCE: Patience = Patience {
    total: Some(Duration::from_secs(40 * 60)),
    silence: Some(Duration::from_secs(7 * 60)),
};

/// As long as it takes: many deaths were asked for.
const SOAK: Patience = Patience { total: None, silence: Some(Duration::from_secs(4 * 60 * 60)) };

/// The lab's memory: a guest of 6 GiB is among the tests, and takes little of what it is given.
const MEMORY: &str = "8G";

/// So many failures are not the lab's.
const SUSPECT: usize = 4;

/// Runs the tests that `filter` chooses.
pub(super) fn run(suite: &Suite, filter: &[String], programs: &[PathBuf]) -> Result<Report> {
    // In there it has a name that does not change with every build.
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let tests = folder.path().join("tests");
    std::os::unix::fs::symlink(&suite.executable, &tests)?;

    let mut todo = names(suite, filter)?;
    let mut report = Report::default();
    let mut suspects: Vec<String> = Vec::new();
    while !todo.is_empty() {
        headline(&format!("{} (in the lab)", suite.name));
        let (reader, end) = boot(&suite.name, &todo, &tests, programs)?;
        let verdicts = reader.verdicts().to_vec();
        let current = reader.current().map(str::to_owned);
        let partial = reader.finish(&end);
        report.skipped.extend(partial.skipped);

        let passed = |name: &&String| verdicts.contains(&((*name).clone(), Verdict::Ok));
        let failed = |name: &&String| {
            verdicts.contains(&((*name).clone(), Verdict::Failed))
                || current.as_ref() == Some(*name)
        };
        report.passed += todo.iter().filter(passed).count();
        let failures: Vec<_> = todo.iter().filter(failed).cloned().collect();
        // Of the tests that no boot has come to, one has to be come to each time.
        ensure!(!verdicts.is_empty() || !failures.is_empty(), "no test ran in the lab: {end}");
        todo.retain(|name| !passed(&name) && !failures.contains(name));
        for name in failures {
            println!("failed in the lab: {name}: {end}");
            if suspects.contains(&name) || suspects.len() == SUSPECT {
                report.failed.push(format!("{}: {name}", suite.name));
            } else {
                suspects.push(name.clone());
                todo.push(name);
            }
        }
    }
    report.passed = report.passed.saturating_sub(report.skipped.len());
    let failed = report.failed.clone();
    let cleared = |name: &String| !failed.contains(&format!("{}: {name}", suite.name));
    report
        .second_try
        .extend(suspects.into_iter().filter(cleared).map(|name| format!("{}: {name}", suite.name)));
    Ok(report)
}

/// The names of the tests that `filter` chooses.
fn names(suite: &Suite, filter: &[String]) -> Result<Vec<String>> {
    let mut command = Command::new(&suite.executable);
    command.args(["--list", "--format", "terse"]).args(filter);
    let output = command.output().with_context(|| format!("cannot start `{}`", shown(&command)))?;
    ensure!(output.status.success(), "`{}` failed: {}", shown(&command), output.status);
    let listed = String::from_utf8_lossy(&output.stdout);
    Ok(listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Runs the tests of these names in one boot; returns what was read and how the run ended.
fn boot(
    suite: &str,
    names: &[String],
    tests: &Path,
    programs: &[PathBuf],
) -> Result<(Reader, String)> {
    let command: Vec<_> = ["/with/tests", "--test-threads=1", "--show-output", "--exact"]
        .into_iter()
        .map(str::to_owned)
        .chain(names.iter().cloned())
        .collect();
    let reader = Arc::new(Mutex::new(Reader::new(suite)));
    let (ours, theirs) = io::pipe().context("cannot make a pipe")?;
    let follower = std::thread::spawn({
        let reader = Arc::clone(&reader);
        move || {
            echo(ours, |line| reader.lock().unwrap_or_else(PoisonError::into_inner).line(line));
        }
    });
    let said = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
    let environment: Vec<_> = [soak::KILLS, soak::TRANSFER].into_iter().filter_map(said).collect();
    let patience = if environment.is_empty() { PATIENCE } else { SOAK };
    let contents = Contents {
        programs,
        files: &[tests.to_path_buf()],
        command: &command,
        environment: &environment,
        terminal: None,
    };
    let sinks = Sinks { stdout: Box::new(theirs), stderr: Box::new(io::stderr()) };
    let outcome = lab::run(&contents, MEMORY, sinks, patience);
    // The sink is closed by now, so the follower has reached its end.
    let _ = follower.join();
    let end = match &outcome {
        Ok(outcome) => format!("exit code {}", outcome.code),
        Err(error) => format!("{error:#}"),
    };
    let unread = Reader::new(suite);
    let reader =
        std::mem::replace(&mut *reader.lock().unwrap_or_else(PoisonError::into_inner), unread);
    Ok((reader, end))
}
