//! One queue through the lives of several device processes, and what must be true after each.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use atoll_backend::kill_point::{Mistake, Step};
use atoll_driver::{Buffer, Error, Memory, Process, Survivor, TIMEOUT, VERSION_1};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::ledger;

/// How long a device that makes mistakes may take; it has often lost requests.
const SHORT: Duration = Duration::from_secs(1);

/// What was wrong in a life.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("a request is never done")]
    Lost,
    #[error("request {0} is done again though the driver has seen it done")]
    Again(u32),
    #[error("an answer to what was not asked, or twice: {0}")]
    Answered(Error),
    #[error("requests are done in the order {found:?} instead of {expected:?}")]
    Order { found: Vec<u32>, expected: Vec<u32> },
}

/// A driver's life.
pub(crate) struct Life {
    survivor: Survivor,
    dir: TempDir,
    mistake: Option<Mistake>,
    /// The requests so far.
    count: u32,
    /// By head, those that are not done.
    open: BTreeMap<u16, u32>,
    done: BTreeSet<u32>,
    /// How much of the ledger was looked at.
    read: usize,
}

impl Life {
    pub(crate) fn new(mistake: Option<Mistake>) -> Self {
        let memory = Memory::new(1 << 20).unwrap();
        let survivor = Survivor::new(memory, 16, VERSION_1).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (open, done) = (BTreeMap::new(), BTreeSet::new());
        Self { survivor, dir, mistake, count: 0, open, done, read: 0 }
    }

    /// Makes `count` requests available, or as many as there is room for.
    pub(crate) fn submit(&mut self, count: u32) {
        let count = count.min(self.survivor.queue.free() as u32);
        for number in self.count..self.count + count {
            let address = self.survivor.memory().put(&number.to_le_bytes()).unwrap();
            let head = self.survivor.queue.add(&[Buffer::readable(address, 4)]).unwrap();
            self.open.insert(head, number);
        }
        self.count += count;
        self.survivor.queue.publish().unwrap();
    }

    /// Lets a process serve until it dies at `death`, or else until all is done. Returns whether it
    /// died.
    pub(crate) fn serve_until_death(&mut self, death: Option<(Step, u32)>) -> Result<bool, Fault> {
        let todo: Vec<_> = (0..self.count).filter(|number| !self.done.contains(number)).collect();
        let mut process = self.start(death);
        let attached = self.survivor.attach(ledger::socket(self.dir.path()));
        self.wait(&mut process)?;
        // It may have died, or be about to, at a step behind the last request.
        let _gone = process.signal(Signal::SIGTERM);
        let (status, stderr) = process.wait().unwrap();
        let died = status.signal() == Some(Signal::SIGKILL as i32);
        assert!(died || attached.is_ok(), "{status}: {stderr}");
        // Between two looks at it, it may have done more.
        self.take_used()?;
        self.check_ledger(&todo)?;
        Ok(died)
    }

    fn start(&self, death: Option<(Step, u32)>) -> Process {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "device_process"]).stdin(Stdio::null()).stdout(Stdio::null());
        command.env(ledger::DIRECTORY, self.dir.path());
        if let Some((step, count)) = death {
            command.env("ATOLL_KILL_POINT", format!("{step:?}:{count}"));
        }
        if let Some(mistake) = self.mistake {
            command.env("ATOLL_MISTAKE", format!("{mistake:?}"));
        }
        Process::run(&mut command).unwrap()
    }

    /// Waits until all is done, or the process is dead.
    fn wait(&mut self, process: &mut Process) -> Result<(), Fault> {
        let deadline = Instant::now() + if self.mistake.is_some() { SHORT } else { TIMEOUT };
        loop {
            let running = process.running().unwrap();
            self.take_used()?;
            if self.open.is_empty() || !running {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Fault::Lost);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn take_used(&mut self) -> Result<(), Fault> {
        while let Some(used) = self.survivor.queue.take_used().map_err(Fault::Answered)? {
            self.done.extend(self.open.remove(&used.head));
        }
        Ok(())
    }

    /// What the process did: of what was left to do, all or the first part, in its order.
    fn check_ledger(&mut self, todo: &[u32]) -> Result<(), Fault> {
        let bytes = fs::read(ledger::file(self.dir.path())).unwrap_or_default();
        let numbers = bytes.chunks_exact(4).map(|number| number.try_into().map(u32::from_le_bytes));
        let found: Vec<u32> = numbers.skip(self.read).map(Result::unwrap).collect();
        self.read += found.len();
        if let Some(again) = found.iter().find(|number| !todo.contains(number)) {
            return Err(Fault::Again(*again));
        }
        if !todo.starts_with(&found) {
            return Err(Fault::Order { found, expected: todo.to_vec() });
        }
        Ok(())
    }
}
