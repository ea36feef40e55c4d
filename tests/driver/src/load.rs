//! A steady load on a disk: as many requests in flight as it is told, each followed by another when
//! it completes. It measures, and does not judge.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::{
    BlkRequest, EVENT_IDX, Error, FrontEnd, Memory, Process, Survivor, TIMEOUT, Used, VERSION_1,
};

/// What the disk is asked, again and again.
const READ: u32 = 512;
const QUEUE_SIZE: u16 = 256;
const MEMORY: u64 = 4 << 20;

/// The requests of a load, which goes on through the deaths of the processes that serve it.
pub struct BlkLoad {
    survivor: Survivor,
    /// By head, the request that is in flight there.
    in_flight: Vec<Option<BlkRequest>>,
    idle: Vec<BlkRequest>,
}

/// What a load came to.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Requests that completed.
    pub requests: u64,
    /// How long that took.
    pub time: Duration,
    /// How long the process was on a CPU for it.
    pub cpu: Duration,
}

impl Measured {
    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.time.as_secs_f64()
    }

    /// Nanoseconds on a CPU for each request.
    pub fn cpu_each(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.requests.max(1) as f64
    }
}

impl BlkLoad {
    /// A load of `depth` reads at once, of which at most a third of the queue's size is possible.
    ///
    /// # Errors
    /// No memory.
    pub fn new(depth: usize) -> Result<Self, Error> {
        let memory = Memory::new(MEMORY)?;
        let survivor = Survivor::new(memory, QUEUE_SIZE, VERSION_1 | EVENT_IDX)?;
        let read = |_| BlkRequest::read(survivor.memory(), 0, READ);
        let idle = (0..depth).map(read).collect::<Result<_, _>>()?;
        let in_flight = vec![None; usize::from(QUEUE_SIZE)];
        Ok(Self { survivor, in_flight, idle })
    }

    /// Connects to the process that serves `socket` now, which keeps a record of what is in flight
    /// if `tracked`. Without one it must be a load's only process.
    ///
    /// # Errors
    /// [`Error::Exchange`] with the message that failed.
    pub fn attach(&mut self, socket: &Path, tracked: bool) -> Result<FrontEnd, Error> {
        if tracked { self.survivor.attach(socket) } else { self.survivor.attach_untracked(socket) }
    }

    /// Puts all that is idle in flight.
    ///
    /// # Errors
    /// [`Error::Full`] when the depth is too large.
    pub fn submit(&mut self) -> Result<(), Error> {
        while let Some(request) = self.idle.pop() {
            let head = self.survivor.queue.add(&request.buffers())?;
            if let Some(slot) = self.in_flight.get_mut(usize::from(head)) {
                *slot = Some(request);
            }
        }
        self.survivor.queue.publish()
    }

    /// Waits until a request completes.
    ///
    /// # Errors
    /// [`Error::Silent`] when none does.
    pub fn wait(&mut self) -> Result<(), Error> {
        let used = self.survivor.queue.wait(TIMEOUT)?;
        self.complete(used);
        Ok(())
    }

    /// Keeps all requests in flight for `time`, and then lets them complete.
    ///
    /// # Errors
    /// [`Error::Silent`] when nothing completes any more.
    pub fn run(&mut self, process: &Process, time: Duration) -> Result<Measured, Error> {
        let (began, cpu_before) = (Instant::now(), process.cpu_nanoseconds()?);
        let mut requests = 0;
        while began.elapsed() < time {
            self.submit()?;
            self.wait()?;
            requests += 1 + self.reap()?;
        }
        while self.survivor.queue.outstanding() > 0 {
            self.wait()?;
            requests += 1;
        }
        let cpu = Duration::from_nanos(process.cpu_nanoseconds()?.saturating_sub(cpu_before));
        Ok(Measured { requests, time: began.elapsed(), cpu })
    }

    /// Takes what has completed by now.
    fn reap(&mut self) -> Result<u64, Error> {
        let mut count = 0;
        while let Some(used) = self.survivor.queue.take_used()? {
            self.complete(used);
            count += 1;
        }
        Ok(count)
    }

    fn complete(&mut self, used: Used) {
        let request = self.in_flight.get_mut(usize::from(used.head)).and_then(Option::take);
        self.idle.extend(request);
    }
}
