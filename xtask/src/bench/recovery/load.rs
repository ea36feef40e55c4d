//! Reads kept in flight by a software driver, while the processes that serve them come and go.

use anyhow::{Context, Result};
use atoll_driver::{BlkRequest, EVENT_IDX, INDIRECT_DESC, Memory, Survivor, TIMEOUT, VERSION_1};
use atoll_tests::image::{Image, MIB};
use atoll_tests::program;

/// The disk's size; it stays in the page cache.
const DISK: u64 = 16 * MIB;

/// What each request reads.
const BLOCK: u32 = 4096;

/// A queue's entries.
const QUEUE: u16 = 256;

/// The image and the options of the device processes: read-only, so that one may wait beside
/// another.
pub(super) struct Disk(Image);

impl Disk {
    pub(super) fn new() -> Self {
        Self(Image::patterned(DISK))
    }

    pub(super) fn options(&self) -> [String; 2] {
        [format!("--blk-file={}", self.0.path().display()), "--read-only".to_owned()]
    }
}

/// The device process's program.
pub(super) fn program() -> Result<String> {
    program::ours("atoll-blk").into_os_string().into_string().ok().context("a path that is no text")
}

/// `depth` reads, which are always in flight.
pub(super) struct Load {
    pub(super) survivor: Survivor,
    requests: Vec<BlkRequest>,
    /// By head, which request is there.
    in_flight: Vec<Option<usize>>,
    idle: Vec<usize>,
    next: u64,
}

impl Load {
    pub(super) fn new(depth: usize) -> Result<Self> {
        let memory = Memory::new(32 << 20)?;
        let features = VERSION_1 | EVENT_IDX | INDIRECT_DESC;
        let survivor = Survivor::new(memory.clone(), QUEUE, features)?;
        let requests = (0..depth)
            .map(|_| BlkRequest::read(&memory, 0, BLOCK))
            .collect::<Result<Vec<_>, _>>()?;
        let in_flight = vec![None; QUEUE.into()];
        Ok(Self { survivor, requests, in_flight, idle: (0..depth).collect(), next: 0 })
    }

    /// Puts every idle request into flight, each at another place of the disk.
    pub(super) fn fill(&mut self) -> Result<()> {
        let memory = self.survivor.memory().clone();
        while let Some(index) = self.idle.pop() {
            let request = self.requests.get(index).context("a request that there is not")?;
            let block = self.next.wrapping_mul(0x9e37_79b9) % (DISK / u64::from(BLOCK));
            self.next += 1;
            let sector = block * u64::from(BLOCK / 512);
            memory.write(request.header + 8, &sector.to_le_bytes())?;
            memory.write(request.status, &[BlkRequest::PENDING])?;
            let head = self.survivor.queue.add(&request.buffers())?;
            if let Some(slot) = self.in_flight.get_mut(usize::from(head)) {
                *slot = Some(index);
            }
        }
        Ok(self.survivor.queue.publish()?)
    }

    /// Takes what has completed, without waiting; returns how many did.
    pub(super) fn drain(&mut self) -> Result<usize> {
        let mut count = 0;
        while let Some(used) = self.survivor.queue.take_used()? {
            self.completed(used.head)?;
            count += 1;
        }
        Ok(count)
    }

    /// Waits for a completion.
    pub(super) fn wait(&mut self) -> Result<()> {
        let used = self.survivor.queue.wait(TIMEOUT)?;
        self.completed(used.head)
    }

    /// Serves `count` requests and keeps the queue as full as it was.
    pub(super) fn run(&mut self, count: usize) -> Result<()> {
        self.fill()?;
        let mut served = 0;
        while served < count {
            self.wait()?;
            served += 1 + self.drain()?;
            self.fill()?;
        }
        Ok(())
    }

    /// Waits until nothing is in flight.
    pub(super) fn finish(&mut self) -> Result<()> {
        while self.idle.len() < self.requests.len() {
            self.wait()?;
        }
        Ok(())
    }

    fn completed(&mut self, head: u16) -> Result<()> {
        let slot = self.in_flight.get_mut(usize::from(head)).and_then(Option::take);
        let index = slot.context("a completion of what was not in flight")?;
        let request = self.requests.get(index).context("a request that there is not")?;
        let status = request.status(self.survivor.memory())?;
        anyhow::ensure!(status == BlkRequest::OK, "a read failed with status {status}");
        self.idle.push(index);
        Ok(())
    }
}
