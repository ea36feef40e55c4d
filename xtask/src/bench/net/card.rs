//! `atoll-net` on a TAP with a software driver, which sleeps until it is called, as a guest does.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use atoll_driver::{
    Buffer, EVENT_IDX, Error, FrontEnd, INDIRECT_DESC, Memory, NET_HEADER, Process, Queue, TIMEOUT,
    Used, VERSION_1,
};
use atoll_tests::program;
use atoll_tests::scratch::Scratch;

use super::reply::{self, TURNED};
use super::side::Side;
use super::wire::{self, WAITING, Wire};
use super::work::{Contender, Figures, RUN, WARM_UP};
use crate::bench::cpu;

/// Linux takes as many as the device has at most; QEMU's own has 256.
const QUEUE: u16 = 256;
/// Linux's, for frames of usual size with mergeable buffers.
const BUFFER: u32 = 1536;
/// How many packets it adds before it shows them: Linux shows each, or some together (`xmit_more`).
const SHOWN: usize = 16;
/// How many it takes before it gives new buffers for them (Linux's `NAPI_POLL_WEIGHT`).
const TAKEN: usize = 64;
/// How long who answers sleeps before it looks whether to end.
const LOOK: Duration = Duration::from_millis(50);
/// What Linux accepts of what matters here: CSUM, GUEST_CSUM, GUEST_TSO4 and 6, HOST_TSO4 and 6, and
/// MRG_RXBUF.
const FEATURES: u64 = VERSION_1
    | EVENT_IDX
    | INDIRECT_DESC
    | (1 << 0 | 1 << 1 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12 | 1 << 15);

/// A process with its driver.
pub(super) struct Card {
    name: &'static str,
    wire: Wire,
    process: Process,
    memory: Memory,
    receive: Queue,
    transmit: Queue,
    /// Buffers that are in no queue, and by head, those that are.
    idle: Vec<u64>,
    received: Vec<u64>,
    sent: Vec<u64>,
    _front_end: FrontEnd,
    _scratch: Scratch,
}

impl Card {
    /// Starts it with more options on a new TAP.
    pub(super) fn start(
        name: &'static str,
        interface: &str,
        number: u8,
        options: &[&str],
    ) -> Result<Self> {
        let wire = Wire::make(interface, number)?;
        let scratch = Scratch::new();
        let socket = scratch.join("socket");
        let mut command = Command::new(program::ours("atoll-net"));
        command.arg(format!("--socket-path={}", socket.display()));
        command.arg(format!("--tap={interface}")).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = Side::Device
            .run(|| Ok(Process::run(&mut command)?))
            .with_context(|| format!("cannot start {name}"))?;
        let memory = Memory::new(16 << 20)?;
        let mut front_end = FrontEnd::connect(&socket, memory.clone())?;
        front_end.negotiate(FEATURES)?;
        let receive = front_end.start_queue(0, QUEUE)?;
        let transmit = front_end.start_queue(1, QUEUE)?;
        let buffer = |_| memory.allocate(2048, 2048);
        let idle = (0..2 * QUEUE).map(buffer).collect::<Result<_, _>>()?;
        let none = vec![0; QUEUE.into()];
        let (received, sent) = (none.clone(), none);
        Ok(Self {
            name,
            wire,
            process,
            memory,
            receive,
            transmit,
            idle,
            received,
            sent,
            _front_end: front_end,
            _scratch: scratch,
        })
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// Makes a buffer available, without showing it.
    fn post(&mut self, buffer: u64) -> Result<()> {
        let head = self.receive.add(&[Buffer::writable(buffer, BUFFER)])?;
        put(&mut self.received, head, buffer)
    }

    /// Gives as many buffers as there are, and no more than `most`. Returns how many.
    fn refill(&mut self, most: usize) -> Result<usize> {
        let count = self.receive.free().min(most).min(self.idle.len());
        for _ in 0..count {
            let Some(buffer) = self.idle.pop() else { break };
            self.post(buffer)?;
        }
        self.receive.publish()?;
        Ok(count)
    }

    /// Adds a packet, without showing it.
    fn add(&mut self, buffer: u64, len: u32) -> Result<()> {
        let head = self.transmit.add(&[Buffer::readable(buffer, len)])?;
        put(&mut self.sent, head, buffer)
    }

    /// Takes back what was sent. Returns how many that were.
    fn reclaim(&mut self) -> Result<u64> {
        let mut count = 0;
        while let Some(used) = self.transmit.take_used()? {
            self.idle.push(get(&self.sent, used)?);
            count += 1;
        }
        Ok(count)
    }

    /// Sends for a while: as Linux does, it takes back what was sent when it sends more, and when the
    /// queue is full asks for a call once three quarters are sent.
    fn send_for(&mut self, len: u32, time: Duration) -> Result<u64> {
        let (mut count, end) = (0, Instant::now() + time);
        while Instant::now() < end {
            while self.transmit.free() > 0 {
                for _ in 0..self.transmit.free().min(SHOWN) {
                    let buffer = self.idle.pop().context("more packets than buffers")?;
                    self.add(buffer, len)?;
                }
                self.transmit.publish()?;
            }
            self.transmit.wait_until_used(QUEUE / 4 * 3, TIMEOUT)?;
            count += self.reclaim()?;
        }
        Ok(count + self.finish_sending()?)
    }

    /// Takes back all that was sent, when it has left. Returns how many that were.
    fn finish_sending(&mut self) -> Result<u64> {
        self.transmit.wait_until_used(QUEUE - self.transmit.free() as u16, TIMEOUT)?;
        self.reclaim()
    }

    /// Takes all that wait.
    fn take_all(&mut self) -> Result<()> {
        let mut unposted = WAITING - self.refill(WAITING)?;
        let mut left = WAITING;
        while left > 0 {
            let mut used = Some(self.receive.wait(TIMEOUT)?);
            let enough = left.saturating_sub(TAKEN);
            while let Some(filled) = used {
                self.idle.push(get(&self.received, filled)?);
                left -= 1;
                used = if left > enough { self.receive.take_used()? } else { None };
            }
            // No more than will be filled: what comes later waits for the next run.
            unposted -= self.refill(unposted)?;
        }
        Ok(())
    }

    /// Turns round what comes until it is to end.
    fn answer_until(&mut self, end: &AtomicBool) -> Result<()> {
        while !end.load(Ordering::Relaxed) {
            self.reclaim()?;
            self.refill(usize::MAX)?;
            let used = match self.receive.wait(LOOK) {
                Ok(used) => used,
                Err(Error::Silent { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let buffer = get(&self.received, used)?;
            let frame = buffer + NET_HEADER as u64;
            let start = self.memory.get(frame, TURNED)?;
            let mut start = start.try_into().ok().context("memory of another length")?;
            reply::turn(&mut start);
            self.memory.write(frame, &start)?;
            self.add(buffer, used.len)?;
            self.transmit.publish()?;
        }
        Ok(())
    }

    /// Has all buffers of the receive queue filled, so that what comes then waits.
    fn empty(&mut self) -> Result<()> {
        let posted = self.receive.outstanding();
        for _ in 0..posted {
            self.wire.send_one()?;
        }
        for _ in 0..posted {
            let used = self.receive.wait(TIMEOUT)?;
            self.idle.push(get(&self.received, used)?);
        }
        Ok(())
    }
}

impl Contender for Card {
    fn name(&self) -> &'static str {
        self.name
    }

    fn send(&mut self, len: usize) -> Result<Figures> {
        let packet = [vec![0; NET_HEADER], wire::frame(len)].concat();
        // Among them may be answers, which are not to be sent again.
        self.finish_sending()?;
        for buffer in &self.idle {
            self.memory.write(*buffer, &packet)?;
        }
        let len = u32::try_from(packet.len())?;
        Side::Driver.run(|| {
            self.send_for(len, WARM_UP)?;
            let (cpu, start) = (cpu::nanoseconds(self.process.id())?, Instant::now());
            let count = self.send_for(len, RUN)?;
            let seconds = start.elapsed().as_secs_f64();
            Ok(Figures::of_frames(count, seconds, cpu::nanoseconds(self.process.id())? - cpu))
        })
    }

    fn take(&mut self, len: usize) -> Result<Figures> {
        self.wire.fill(len)?;
        Side::Driver.run(|| {
            let (cpu, start) = (cpu::nanoseconds(self.process.id())?, Instant::now());
            self.take_all()?;
            let (seconds, count) = (start.elapsed().as_secs_f64(), WAITING as u64);
            Ok(Figures::of_frames(count, seconds, cpu::nanoseconds(self.process.id())? - cpu))
        })
    }

    fn answer(&mut self, len: usize) -> Result<Figures> {
        let end = AtomicBool::new(false);
        let asking = self.wire.asker()?;
        let process = self.process.id();
        let (times, cpu) = thread::scope(|scope| {
            let answering = scope.spawn(|| self.answer_until(&end));
            let asked = asking.ask(len, WARM_UP).and_then(|_| {
                let cpu = cpu::nanoseconds(process)?;
                Ok((asking.ask(len, RUN)?, cpu::nanoseconds(process)? - cpu))
            });
            end.store(true, Ordering::Relaxed);
            answering.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            asked
        })?;
        self.empty()?;
        let cpu = cpu / times.len() as f64;
        Ok(Figures::of_round_trips(times, cpu))
    }
}

fn put(slots: &mut [u64], head: u16, buffer: u64) -> Result<()> {
    *slots.get_mut(usize::from(head)).context("a head beyond all")? = buffer;
    Ok(())
}

fn get(slots: &[u64], used: Used) -> Result<u64> {
    slots.get(usize::from(used.head)).copied().context("a head beyond all")
}
