//! The limit: a plain program that reads and writes the TAP, one frame a call, with no guest.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use atoll_driver::NET_HEADER;
use atoll_net::Tap;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{read, write};

use super::reply::{self, TURNED};
use super::side::Side;
use super::wire::{self, WAITING, Wire};
use super::work::{Contender, Figures, RUN, WARM_UP};

pub(super) const NAME: &str = "read and write on the TAP";

/// How often one who has nothing to answer looks whether to end, in ms.
const LOOK: u8 = 50;

/// A program on a TAP.
pub(super) struct Limit {
    wire: Wire,
    tap: Tap,
    room: Vec<u8>,
}

impl Limit {
    pub(super) fn new(interface: &str, number: u8) -> Result<Self> {
        let wire = Wire::make(interface, number)?;
        let tap = Tap::attach(interface, 1)?.pop().context("a TAP without a queue")?;
        Ok(Self { wire, tap, room: vec![0; 2048] })
    }

    fn send_for(&self, packet: &[u8], time: Duration) -> Result<Figures> {
        let (cpu, start) = (cpu_nanoseconds()?, Instant::now());
        let mut count = 0;
        while start.elapsed() < time {
            // Looking at the clock costs something.
            for _ in 0..64 {
                write(&self.tap, packet).context("cannot write to the TAP")?;
                count += 1;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        Ok(Figures::of_frames(count, seconds, cpu_nanoseconds()? - cpu))
    }

    /// Reads a packet, if there is one.
    fn next(&mut self) -> Result<Option<&mut [u8]>> {
        match read(&self.tap, &mut self.room) {
            Ok(len) => Ok(self.room.get_mut(..len)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno).context("cannot read from the TAP"),
        }
    }

    /// Takes all packets that wait.
    fn take_all(&mut self) -> Result<()> {
        let mut left = WAITING;
        while left > 0 {
            match self.next()? {
                Some(_packet) => left -= 1,
                None => self.wait()?,
            }
        }
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        let mut fds = [PollFd::new(self.tap.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(LOOK)).map(drop).context("cannot wait for the TAP")
    }

    /// Answers until it is to end. Returns how long it was on a CPU for each answer.
    fn answer_until(&mut self, end: &AtomicBool) -> Result<f64> {
        let (cpu, mut count) = (cpu_nanoseconds()?, 0_u32);
        while !end.load(Ordering::Relaxed) {
            let Some(packet) = self.next()? else {
                self.wait()?;
                continue;
            };
            let start = packet.get_mut(NET_HEADER..).and_then(<[u8]>::first_chunk_mut::<TURNED>);
            reply::turn(start.context("a frame too short to be answered")?);
            let len = packet.len();
            let packet = self.room.get(..len).unwrap_or_default();
            write(&self.tap, packet).context("cannot write to the TAP")?;
            count += 1;
        }
        Ok((cpu_nanoseconds()? - cpu) / f64::from(count))
    }
}

impl Contender for Limit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn send(&mut self, len: usize) -> Result<Figures> {
        let packet = [vec![0; NET_HEADER], wire::frame(len)].concat();
        Side::Device.run(|| {
            self.send_for(&packet, WARM_UP)?;
            self.send_for(&packet, RUN)
        })
    }

    fn take(&mut self, len: usize) -> Result<Figures> {
        self.wire.fill(len)?;
        Side::Device.run(|| {
            let (cpu, start) = (cpu_nanoseconds()?, Instant::now());
            self.take_all()?;
            let seconds = start.elapsed().as_secs_f64();
            Ok(Figures::of_frames(WAITING as u64, seconds, cpu_nanoseconds()? - cpu))
        })
    }

    fn answer(&mut self, len: usize) -> Result<Figures> {
        let end = AtomicBool::new(false);
        let asking = self.wire.asker()?;
        thread::scope(|scope| {
            let answering = scope.spawn(|| self.answer_until(&end));
            let times = asking.ask(len, WARM_UP).and_then(|_| asking.ask(len, RUN));
            end.store(true, Ordering::Relaxed);
            let cpu = answering.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(Figures::of_round_trips(times?, cpu))
        })
    }
}

/// Of this thread.
fn cpu_nanoseconds() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}
