//! A device process under test: started, watched, measured, and never left behind.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, TIMEOUT};

/// What a process holds on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Open files.
    pub files: usize,
    /// Threads.
    pub threads: usize,
    /// Resident memory in KiB that is no file's.
    pub anonymous_kib: u64,
}

impl Footprint {
    /// Whether `later` is more than this, beyond the few pages that an allocator keeps.
    pub fn is_exceeded_by(&self, later: &Self) -> bool {
        let kept = 256;
        later.files > self.files
            || later.threads > self.threads
            || later.anonymous_kib > self.anonymous_kib + kept
    }
}

/// A child process whose standard error is collected. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stderr: Option<JoinHandle<String>>,
}

impl Process {
    /// Starts `program` with `args`, no standard input and output.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn<A: AsRef<OsStr>>(
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Self, Error> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
        Self::run(&mut command)
    }

    /// Starts a command with standard input and output as it says.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(command: &mut Command) -> Result<Self, Error> {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| Error::system("starting the process", source))?;
        let stderr = child.stderr.take().map(|mut pipe| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                // What came before a read error is still worth showing.
                let _ = pipe.read_to_end(&mut bytes);
                String::from_utf8_lossy(&bytes).into_owned()
            })
        });
        Ok(Self { child, stderr })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its standard input and output.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// The system's.
    pub fn running(&mut self) -> Result<bool, Error> {
        let status = self.child.try_wait();
        status
            .map(|status| status.is_none())
            .map_err(|source| Error::system("looking at the process", source))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let pid = i32::try_from(self.child.id()).unwrap_or(i32::MAX);
        kill(Pid::from_raw(pid), signal).map_err(|errno| Error::system("sending a signal", errno))
    }

    /// Waits for its end. Returns how it ended and what it wrote to standard error.
    ///
    /// # Errors
    /// [`Error::Late`] when it goes on.
    pub fn wait(&mut self) -> Result<(ExitStatus, String), Error> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let status = self
                .child
                .try_wait()
                .map_err(|source| Error::system("waiting for the process", source))?;
            if let Some(status) = status {
                let stderr = self.stderr.take().and_then(|reader| reader.join().ok());
                return Ok((status, stderr.unwrap_or_default()));
            }
            if Instant::now() > deadline {
                return Err(Error::Late { what: "the end of the process", timeout: TIMEOUT });
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends SIGTERM and waits for its end.
    ///
    /// # Errors
    /// [`Error::Late`] when it goes on.
    pub fn terminate(&mut self) -> Result<(ExitStatus, String), Error> {
        self.signal(Signal::SIGTERM)?;
        self.wait()
    }

    /// What it holds on to now.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn footprint(&self) -> Result<Footprint, Error> {
        let (files, threads) = (self.open_files()?, self.tasks()?.len());
        Ok(Footprint { files, threads, anonymous_kib: self.anonymous_kib()? })
    }

    /// Private resident memory in KiB: what this process costs on top of pages that it shares. In
    /// an unoptimised build most of it is code.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn private_kib(&self) -> Result<u64, Error> {
        Ok(self.resident_kib("Private_Clean:")? + self.resident_kib("Private_Dirty:")?)
    }

    /// Resident memory in KiB that is no file's: heap, stacks, changed data.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn anonymous_kib(&self) -> Result<u64, Error> {
        self.resident_kib("Anonymous:")
    }

    fn resident_kib(&self, kind: &str) -> Result<u64, Error> {
        let rollup = self.proc("smaps_rollup")?;
        let line = rollup.lines().find(|line| line.starts_with(kind)).unwrap_or_default();
        Ok(line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0))
    }

    /// Time on a CPU since the start, in nanoseconds, all threads together.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_nanoseconds(&self) -> Result<u64, Error> {
        let mut total = 0;
        for task in self.tasks()? {
            let stat = self.proc(&format!("task/{task}/schedstat"))?;
            total +=
                stat.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(total)
    }

    /// The names of its threads.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn threads(&self) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for task in self.tasks()? {
            names.push(self.proc(&format!("task/{task}/comm"))?.trim().to_owned());
        }
        Ok(names)
    }

    /// How many files it has open.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn open_files(&self) -> Result<usize, Error> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.id()));
        Ok(entries.map_err(|source| Error::system("counting open files", source))?.count())
    }

    fn tasks(&self) -> Result<Vec<String>, Error> {
        let entries = fs::read_dir(format!("/proc/{}/task", self.id()))
            .map_err(|source| Error::system("listing threads", source))?;
        let name = |entry: std::io::Result<fs::DirEntry>| {
            Some(entry.ok()?.file_name().to_string_lossy().into_owned())
        };
        Ok(entries.filter_map(name).collect())
    }

    fn proc(&self, file: &str) -> Result<String, Error> {
        fs::read_to_string(format!("/proc/{}/{file}", self.id()))
            .map_err(|source| Error::system("reading /proc", source))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the process has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
