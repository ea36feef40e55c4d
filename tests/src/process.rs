//! A child process whose output is kept, and which never outlives its owner.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::scratch::Scratch;
use crate::{PATIENCE, procfs, program, wait_for};

/// A running program in a process group of its own. Dropping it kills the whole group.
pub struct Process {
    name: String,
    command_line: String,
    child: Child,
    output: Output,
    exit: Option<ExitStatus>,
}

/// The files that a program's output goes to.
struct Output {
    stdout: PathBuf,
    stderr: PathBuf,
    _scratch: Scratch,
}

/// What a program that has ended left.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; a signal's number plus 128 when one ended it, as a shell counts.
    pub code: i32,
    /// All it printed.
    pub stdout: String,
    /// All it complained about.
    pub stderr: String,
}

impl Process {
    /// Starts the program `name` of this workspace.
    #[track_caller]
    pub fn ours(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Command::new(program::ours(name));
        command.args(args);
        Self::spawn(command)
    }

    /// Starts `command`, its input empty unless the caller set one, its output kept.
    #[track_caller]
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::spawn_with_stdin(command)
    }

    /// Like [`spawn`](Self::spawn), with the standard input that `command` says.
    #[track_caller]
    pub fn spawn_with_stdin(mut command: Command) -> Self {
        let scratch = Scratch::new();
        let output = Output {
            stdout: scratch.join("stdout"),
            stderr: scratch.join("stderr"),
            _scratch: scratch,
        };
        command
            .stdout(File::create(&output.stdout).expect("make a file for stdout"))
            .stderr(File::create(&output.stderr).expect("make a file for stderr"))
            .process_group(0);
        let command_line = describe(&command);
        let name = Path::new(command.get_program())
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start `{command_line}`: {error}"),
        };
        Self { name, command_line, child, output, exit: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The command that started it, as one would type it.
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        read_lossy(&self.output.stdout)
    }

    /// What it has complained about so far.
    pub fn stderr(&self) -> String {
        read_lossy(&self.output.stderr)
    }

    /// Sends it `signal`.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(self.nix_pid(), signal).expect("signal a child");
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    /// Waits until it has said `text` on its standard error.
    ///
    /// # Panics
    /// When it ends without, or takes longer than [`PATIENCE`].
    #[track_caller]
    pub fn wait_to_say(&mut self, text: &str) {
        wait_for(&format!("{} to say {text:?}", self.name), || {
            let running = self.is_running();
            let said = self.stderr().contains(text);
            assert!(said || running, "{} ended without {text:?}:\n{}", self.name, self.stderr());
            said.then_some(())
        });
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it runs on for longer than [`PATIENCE`].
    #[track_caller]
    pub fn wait(&mut self) -> Finished {
        match self.wait_at_most(PATIENCE) {
            Some(finished) => finished,
            None => panic!("`{}` still runs after {PATIENCE:?}", self.command_line),
        }
    }

    /// Waits for its end, which may not come within `limit`.
    pub fn wait_at_most(&mut self, limit: Duration) -> Option<Finished> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(exit) = self.poll() {
                let code = exit.code().or(exit.signal().map(|signal| 128 + signal)).unwrap_or(-1);
                return Some(Finished { code, stdout: self.stdout(), stderr: self.stderr() });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Asks it to end with SIGTERM and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) -> Finished {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// The processes of its group that still run: itself, and children it has left behind.
    pub fn group_members(&mut self) -> Vec<u32> {
        let _reaped = self.poll();
        procfs::group(self.pid())
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().expect("wait for a child");
        }
        self.exit
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("pids are positive"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group outlives its leader as long as one member lives, so its id is not reused.
        // ESRCH: all have ended, which is what is wanted.
        let _already_gone = killpg(self.nix_pid(), Signal::SIGKILL);
        let _reaped = self.child.wait();
    }
}

/// Runs the program `name` of this workspace to its end.
#[track_caller]
pub fn run(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Finished {
    Process::ours(name, args).wait()
}

/// Runs somebody else's program to its end.
///
/// # Panics
/// When it is not there or fails.
#[track_caller]
pub fn tool(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let Some(path) = program::find(name) else { panic!("{name} is not installed") };
    let mut command = Command::new(path);
    command.args(args);
    let mut process = Process::spawn(command);
    let finished = process.wait();
    assert_eq!(finished.code, 0, "`{}`: {}", process.command_line(), finished.stderr);
    finished.stdout
}

fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy();
            if word.contains(' ') { format!("'{word}'") } else { word.into_owned() }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
