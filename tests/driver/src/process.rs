//! A device process under test: started, watched, measured, and never left behind.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
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
    log: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
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
        let log = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stderr.take().map(|pipe| {
            let log = Arc::clone(&log);
            thread::spawn(move || collect(pipe, &log))
        });
        Ok(Self { child, log, reader })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its standard input and output.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        let bytes = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has written `words` to standard error.
    ///
    /// # Errors
    /// [`Error::Late`] when it does not.
    pub fn wait_for_log(&self, words: &str) -> Result<(), Error> {
        let deadline = Instant::now() + TIMEOUT;
        while !self.log().contains(words) {
            if Instant::now() > deadline {
                return Err(Error::Late { what: "words in the log", timeout: TIMEOUT });
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
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
                // A reader that panicked has told of it, and what it had read is there.
                let _ = self.reader.take().map(JoinHandle::join);
                return Ok((status, self.log()));
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

    /// The scheduler's class (sched(7)) of the thread called `name`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn scheduling_class(&self, name: &str) -> Result<i32, Error> {
        for task in self.tasks()? {
            if self.proc(&format!("task/{task}/comm"))?.trim() == name {
                let stat = self.proc(&format!("task/{task}/stat"))?;
                // proc_pid_stat(5): field 41, where the name's bracket ends field 2.
                let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
                let class = fields.skip(38).find_map(|field| field.parse().ok());
                return class.ok_or(Error::system("reading /proc", ErrorKind::InvalidData));
            }
        }
        Err(Error::system("looking for a thread", ErrorKind::NotFound))
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

/// Reads into `log` until the end. What came before a read error is still worth showing.
fn collect(mut pipe: ChildStderr, log: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 4096];
    while let Ok(len @ 1..) = pipe.read(&mut bytes) {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes.get(..len).unwrap_or_default());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the process has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
