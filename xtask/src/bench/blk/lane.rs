//! One queue kept full by a software driver, which sleeps until it is called, as a guest does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use atoll_driver::{BlkRequest, Buffer, Memory, Queue, TIMEOUT};

use super::DISK;
use super::work::Cell;
use crate::bench::median::median as middle;

/// What a run, or the median of several, came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    /// Requests a second.
    pub(super) rate: f64,
    /// Of the times from submission to completion, us.
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// The process's time on a CPU for each request, ns.
    pub(super) cpu: f64,
}

/// Each figure's own median.
pub(super) fn median(runs: &[Figures]) -> Figures {
    let middle = |of: fn(&Figures) -> f64| middle(runs.iter().map(of));
    Figures {
        rate: middle(|run| run.rate),
        p50: middle(|run| run.p50),
        p99: middle(|run| run.p99),
        cpu: middle(|run| run.cpu),
    }
}

/// The median of what `of` is in each run beside the run of `others` in the same turn.
pub(super) fn median_ratio(runs: &[Figures], others: &[Figures], of: fn(&Figures) -> f64) -> f64 {
    middle(runs.iter().zip(others).map(|(a, b)| of(a) / of(b)))
}

/// Times in us at 50 and 99 percent.
pub(super) fn percentiles(mut times: Vec<u32>) -> (f64, f64) {
    times.sort_unstable();
    let at = |percent: usize| {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or(f64::NAN, |&time| f64::from(time) / 1e3)
    };
    (at(50), at(99))
}

/// One queue's requests.
pub(super) struct Lane<'queue> {
    queue: &'queue mut Queue,
    memory: Memory,
    cell: Cell,
    requests: Vec<BlkRequest>,
    /// When each was submitted.
    since: Vec<Instant>,
    /// By head, which request is there.
    in_flight: Vec<Option<usize>>,
    idle: Vec<usize>,
    state: u64,
}

impl<'queue> Lane<'queue> {
    pub(super) fn new(queue: &'queue mut Queue, memory: &Memory, cell: Cell) -> Result<Self> {
        let request = |_| -> Result<BlkRequest> {
            let len = cell.pattern.block();
            // As a guest's pages are.
            let address = memory.allocate(len as usize, 4096)?;
            let (kind, buffer) = if cell.pattern.writes() {
                (BlkRequest::OUT, Buffer::readable(address, len))
            } else {
                (BlkRequest::IN, Buffer::writable(address, len))
            };
            Ok(BlkRequest::new(memory, kind, 0, vec![buffer])?)
        };
        let requests = (0..cell.depth).map(request).collect::<Result<Vec<_>>>()?;
        let state = 0x9e37_79b9_7f4a_7c15 ^ queue.index() as u64;
        Ok(Self {
            in_flight: vec![None; queue.ring().size().into()],
            since: vec![Instant::now(); requests.len()],
            idle: (0..requests.len()).collect(),
            memory: memory.clone(),
            queue,
            cell,
            requests,
            state,
        })
    }

    /// Keeps it full for `time`. Returns the time of each request that completed, in ns.
    pub(super) fn run(&mut self, time: Duration) -> Result<Vec<u32>> {
        let mut times = Vec::with_capacity(1 << 16);
        let end = Instant::now() + time;
        loop {
            let now = Instant::now();
            if now < end {
                self.fill(now)?;
            } else if self.idle.len() == self.requests.len() {
                return Ok(times);
            }
            let used = self.queue.wait(TIMEOUT)?;
            self.completed(used.head, &mut times)?;
            while let Some(used) = self.queue.take_used()? {
                self.completed(used.head, &mut times)?;
            }
        }
    }

    fn fill(&mut self, now: Instant) -> Result<()> {
        while let Some(index) = self.idle.pop() {
            let sector = self.sector();
            let request = self.requests.get(index).context("a request that there is not")?;
            self.memory.write(request.header + 8, &sector.to_le_bytes())?;
            self.memory.write(request.status, &[BlkRequest::PENDING])?;
            let head = self.queue.add(&request.buffers())?;
            let slot = self.in_flight.get_mut(usize::from(head)).context("a head beyond all")?;
            *slot = Some(index);
            *self.since.get_mut(index).context("a request that there is not")? = now;
        }
        Ok(self.queue.publish()?)
    }

    fn sector(&mut self) -> u64 {
        let block = u64::from(self.cell.pattern.block());
        let blocks = DISK / block;
        let next = match self.cell.pattern {
            super::work::Pattern::SequentialRead => self.state.wrapping_add(1),
            // Marsaglia's xorshift.
            _ => {
                let state = self.state ^ (self.state << 13);
                let state = state ^ (state >> 7);
                state ^ (state << 17)
            }
        };
        self.state = next;
        next % blocks * (block / 512)
    }

    fn completed(&mut self, head: u16, times: &mut Vec<u32>) -> Result<()> {
        let slot = self.in_flight.get_mut(usize::from(head)).and_then(Option::take);
        let index = slot.context("a completion of what was not in flight")?;
        let request = self.requests.get(index).context("a request that there is not")?;
        let status = request.status(&self.memory)?;
        ensure!(status == BlkRequest::OK, "a request failed with status {status}");
        let since = self.since.get(index).context("a request that there is not")?;
        times.push(u32::try_from(since.elapsed().as_nanos()).unwrap_or(u32::MAX));
        self.idle.push(index);
        Ok(())
    }
}
