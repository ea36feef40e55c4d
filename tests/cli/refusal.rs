//! How a command refuses: what all of these tests check.

use std::ffi::OsStr;
use std::process::Command;

use atoll_tests::payload;
use atoll_tests::process::{Finished, Process};
use atoll_tests::program;
use atoll_tests::scratch::Scratch;

/// Exit code of a command that was asked for wrongly.
pub(crate) const USAGE: i32 = 2;
/// Exit code of a command that could not do what it was asked for.
pub(crate) const FAILURE: i32 = 1;

/// An `atoll run` of a kernel that halts.
pub(crate) struct Run {
    pub(crate) scratch: Scratch,
    args: Vec<String>,
}

impl Run {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        let kernel = scratch.write("kernel", payload::kernel(payload::HALT));
        let args = ["run", "--kernel"].map(str::to_owned).to_vec();
        Self { scratch, args }.with(&kernel.to_string_lossy())
    }

    /// With one more word on its command line; a later option of one kind wins over none.
    pub(crate) fn with(mut self, word: &str) -> Self {
        self.args.push(word.to_owned());
        self
    }

    /// With `contents` as the kernel.
    pub(crate) fn kernel(self, contents: &[u8]) -> Self {
        self.scratch.write("kernel", contents);
        self
    }

    /// Its command line.
    pub(crate) fn words(&self) -> &[String] {
        &self.args
    }

    pub(crate) fn start(&self) -> Process {
        Process::ours("atoll", &self.args)
    }

    /// The run ends with `code` and a sentence that has all of `words` in it.
    #[track_caller]
    pub(crate) fn is_refused(&self, code: i32, words: &[&str]) {
        assert_sentence("atoll", &self.start().wait(), code, words);
    }
}

/// `program` with `args` ends with `code` and a sentence that has all of `words` in it.
#[track_caller]
pub(crate) fn assert_refuses<A: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = A>,
    code: i32,
    words: &[&str],
) {
    assert_sentence(program, &Process::ours(program, args).wait(), code, words);
}

/// The same for a `command` that ends up as `program`.
#[track_caller]
pub(crate) fn assert_command_refuses(program: &str, command: Command, code: i32, words: &[&str]) {
    assert_sentence(program, &Process::spawn(command).wait(), code, words);
}

/// Exactly one line of `program`'s own, its last, with all of `words` in what was said.
#[track_caller]
pub(crate) fn assert_sentence(program: &str, finished: &Finished, code: i32, words: &[&str]) {
    let said = &finished.stderr;
    assert_eq!(finished.code, code, "the exit code, after: {said}");
    let prefix = format!("{program}: ");
    let sentences = said.lines().filter(|line| line.starts_with(&prefix)).count();
    assert_eq!(sentences, 1, "one sentence, in: {said}");
    assert!(said.lines().last().is_some_and(|line| line.starts_with(&prefix)), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// `program` as the superuser without any of his privileges, to whom file modes apply.
pub(crate) fn without_privileges(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(program::ours(program));
    command
}
