//! A root shell at a console: commands in, their output and exit codes back.
//!
//! Works with any Bourne shell, whether it echoes and edits lines or not: each command runs between
//! two marks that no echo of the typed line can look like.

use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::console::{Console, Silence};

/// A shell at the far end of a [`Console`].
pub struct Shell {
    console: Console,
    commands: u32,
}

/// What a command in a guest left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code.
    pub status: i32,
    /// What it printed, errors too, without the white space around it.
    pub stdout: String,
}

impl Shell {
    /// A shell that will be at `console` some time.
    pub fn new(console: Console) -> Self {
        Self { console, commands: 0 }
    }

    /// Its console.
    pub fn console(&mut self) -> &mut Console {
        &mut self.console
    }

    /// Waits until the shell answers.
    ///
    /// # Errors
    /// [`Silence`] when it does not.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<(), Silence> {
        let deadline = Instant::now() + limit;
        let from = self.console.position();
        while Instant::now() < deadline {
            // What is typed before the shell is there may be lost, so it is asked again. Late
            // answers do no harm: they come before the next command's first mark.
            self.console.type_text("printf '\\n@%s\\n' ready\n");
            let answer = self.console.wait_for(from, Duration::from_secs(2), |heard| {
                heard.contains("\n@ready\n").then_some(())
            });
            match answer {
                Err(Silence::TimeUp) => {}
                other => return other,
            }
        }
        Err(Silence::TimeUp)
    }

    /// Runs `command`, which may be anything that a shell takes between braces on one line.
    ///
    /// # Panics
    /// When it does not end within [`PATIENCE`], or the console closes.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> Output {
        let from = self.start(command);
        match self.finish(from, PATIENCE) {
            Ok(output) => output,
            Err(silence) => panic!("`{command}` in the guest has not ended: {silence:?}"),
        }
    }

    /// Runs `command`, which may not come to an end within `limit`.
    #[track_caller]
    pub fn try_run(&mut self, command: &str, limit: Duration) -> Option<Output> {
        let from = self.start(command);
        self.finish(from, limit).ok()
    }

    /// Types `command` and does not wait for it; returns where its output starts.
    #[track_caller]
    fn start(&mut self, command: &str) -> usize {
        assert!(!command.contains('\n'), "a command is one line: {command:?}");
        self.commands += 1;
        let number = self.commands;
        let from = self.console.position();
        // The typed line has `@%s` where the marks have `@begin` and `@end`. The command is read
        // to its closing brace before it runs, so its output has no echo in it.
        self.console.type_text(&format!(
            "printf '\\n@%s {number}\\n' begin; {{ {command}\n}}; printf '\\n@%s {number} %d\\n' end $?\n"
        ));
        from
    }

    fn finish(&mut self, from: usize, limit: Duration) -> Result<Output, Silence> {
        let begin = format!("\n@begin {}\n", self.commands);
        let end = format!("\n@end {} ", self.commands);
        self.console.wait_for(from, limit, |heard| {
            let (_, body) = heard.split_once(&begin)?;
            let (stdout, rest) = body.split_once(&end)?;
            let (status, _) = rest.split_once('\n')?;
            Some(Output { status: status.parse().ok()?, stdout: stdout.trim().to_owned() })
        })
    }
}
