//! Reads what Rust's test runner prints, line by line, and counts. Prints nothing itself.

use std::fmt;

/// What came of a number of tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) passed: usize,
    /// The tests that failed, and the runs that ended without saying how many did.
    pub(crate) failed: Vec<String>,
    /// The tests that could not run, each with its reason.
    pub(crate) skipped: Vec<String>,
    /// The tests that failed in one boot of the lab and passed in another.
    pub(crate) second_try: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, skipped) = (self.failed.len(), self.skipped.len());
        write!(out, "{} passed, {failed} failed, {skipped} skipped", self.passed)
    }
}

impl Report {
    /// Adds another's counts.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
        self.second_try.extend(other.second_try);
    }
}

/// Where in a run's output the reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The tests as they run.
    Running,
    /// What passed tests printed.
    Successes,
    /// What failed tests printed, and then their names.
    Failures,
}

/// The reader of one run's output.
pub(crate) struct Reader {
    suite: String,
    part: Part,
    report: Report,
    result: Option<Counts>,
    /// The test whose verdict has not come yet.
    current: Option<String>,
    verdicts: Vec<(String, Verdict)>,
}

/// What came of one test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It passed, or could not run.
    Ok,
    /// It failed.
    Failed,
}

struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Reader {
    /// A reader of the tests of `suite`.
    pub(crate) fn new(suite: &str) -> Self {
        let suite = suite.to_owned();
        Self {
            suite,
            part: Part::Running,
            report: Report::default(),
            result: None,
            current: None,
            verdicts: Vec::new(),
        }
    }

    /// The tests that have come to an end, in the order of their ends.
    pub(crate) fn verdicts(&self) -> &[(String, Verdict)] {
        &self.verdicts
    }

    /// The test that has begun and not ended.
    pub(crate) fn current(&self) -> Option<&str> {
        self.current.as_deref()
    }

    /// Takes the next line and says whether a person wants to see it.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        // A test says it in the middle of the runner's own line when it runs alone.
        if let Some((_, skipped)) = line.split_once("skipped: ") {
            self.report.skipped.push(format!("{}: {skipped}", self.suite));
        } else if let Some((test, _)) =
            line.strip_prefix("test ").and_then(|test| test.split_once(" ... ignored"))
        {
            let reason = line.split_once(" ... ignored, ").map_or("ignored", |(_, reason)| reason);
            self.report.skipped.push(format!("{}: {test}: {reason}", self.suite));
        }
        if self.part == Part::Running {
            self.hear_verdict(line);
        }
        match line {
            "successes:" => self.part = Part::Successes,
            "failures:" => self.part = Part::Failures,
            _ => {}
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.part = Part::Running;
            self.result = counts(result);
        }
        if self.part == Part::Failures
            && let Some(name) = line.strip_prefix("    ")
            && !name.contains(char::is_whitespace)
        {
            self.report.failed.push(format!("{}: {name}", self.suite));
        }
        self.part != Part::Successes && !line.is_empty() && !line.starts_with("running ")
    }

    /// `test NAME ... ok`, where the verdict may come on a line of its own.
    fn hear_verdict(&mut self, line: &str) {
        let begun = line.strip_prefix("test ").and_then(|test| test.split_once(" ... "));
        let said = match begun {
            Some((name, said)) => {
                self.current = Some(name.to_owned());
                said
            }
            None => line,
        };
        let verdict = match said {
            "FAILED" => Verdict::Failed,
            "ok" => Verdict::Ok,
            _ if begun.is_some() && said.starts_with("ignored") => Verdict::Ok,
            _ => return,
        };
        self.verdicts.extend(self.current.take().map(|name| (name, verdict)));
    }

    /// The counts, now that the run has ended; `end` says how.
    pub(crate) fn finish(mut self, end: &str) -> Report {
        let named = self.report.failed.len();
        match self.result {
            Some(counts) => {
                let noted = self.report.skipped.len().saturating_sub(counts.ignored);
                self.report.passed = counts.passed.saturating_sub(noted);
                // What failed tests printed may look like a name of one.
                self.report.failed.drain(..named.saturating_sub(counts.failed));
            }
            None => self.report.failed.push(format!("{}: {end}", self.suite)),
        }
        self.report
    }
}

/// `ok. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s`
fn counts(result: &str) -> Option<Counts> {
    let (_, counts) = result.split_once(". ")?;
    let mut numbers = counts.split("; ").map(|part| part.split(' ').next()?.parse().ok());
    let mut next = || numbers.next()?;
    Some(Counts { passed: next()?, failed: next()?, ignored: next()? })
}

#[cfg(test)]
#[path = "report_test.rs"]
mod tests;
