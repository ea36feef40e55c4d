//! The process dies at each step of a request's way (where one can only be told to in a debug
//! build). Its successor does what was left, and touches nothing that was done.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use atoll_backend::kill_point::{Mistake, Step};
use atoll_driver::{BlkRequest, Memory, Process, Survivor, TIMEOUT};
use nix::sys::signal::Signal;

use crate::disk::{FLUSH, Image, PROGRAM, SECTOR, USUAL, sector_byte};

/// What is put on the host over a sector of which all writes are done.
const TAMPERED: [u8; SECTOR] = [0xee; SECTOR];
const WRITES: u64 = 12;

/// Writes, each to a sector of its own, for a disk does what is in flight in any order; and reads.
struct Work {
    image: Image,
    survivor: Survivor,
    /// By head, the request that is not done, and its place.
    open: BTreeMap<u16, (u64, BlkRequest)>,
    mistake: Option<Mistake>,
}

/// What the write at `place` is made of, which goes to the sector `place`.
fn write_at(place: u64) -> [u8; SECTOR] {
    [0x10 + place as u8; SECTOR]
}

/// The sector that the read at `place` reads, and nobody writes.
fn read_at(place: u64) -> u64 {
    100 + place
}

impl Work {
    fn new(mistake: Option<Mistake>) -> Self {
        let memory = Memory::new(1 << 20).unwrap();
        let mut survivor = Survivor::new(memory.clone(), 128, USUAL | FLUSH).unwrap();
        let mut open = BTreeMap::new();
        for place in 0..WRITES {
            let write = BlkRequest::write(&memory, place, &write_at(place)).unwrap();
            let read = BlkRequest::read(&memory, read_at(place), SECTOR as u32).unwrap();
            for request in [write, read] {
                let head = survivor.queue.add(&request.buffers()).unwrap();
                open.insert(head, (place, request));
            }
        }
        survivor.queue.publish().unwrap();
        Self { image: Image::new(), survivor, open, mistake }
    }

    /// Lets a process work until it dies, or all is done. Returns whether it died, or what the
    /// device got wrong.
    fn run(&mut self, death: Option<(Step, u32)>) -> Result<bool, String> {
        let mut command = Command::new(PROGRAM);
        command.args(self.image.args()).stdin(Stdio::null()).stdout(Stdio::null());
        command.envs(death.map(|(step, count)| ("ATOLL_KILL_POINT", format!("{step:?}:{count}"))));
        command.envs(self.mistake.map(|mistake| ("ATOLL_MISTAKE", format!("{mistake:?}"))));
        let mut process = Process::run(&mut command).unwrap();
        let attached = self.survivor.attach(self.image.socket());
        let deadline = Instant::now() + TIMEOUT;
        while process.running().unwrap() && !self.open.is_empty() {
            self.take_used()?;
            assert!(Instant::now() < deadline, "requests that are never done");
            std::thread::yield_now();
        }
        let _gone = process.signal(Signal::SIGTERM);
        let (status, stderr) = process.wait().unwrap();
        let died = status.signal() == Some(Signal::SIGKILL as i32);
        assert!(died || status.success() && attached.is_ok(), "{status}: {stderr}");
        self.take_used()?;
        Ok(died)
    }

    fn take_used(&mut self) -> Result<(), String> {
        while let Some(used) = self.survivor.queue.take_used().map_err(|e| e.to_string())? {
            let (place, request) = self.open.remove(&used.head).unwrap();
            let memory = self.survivor.memory();
            assert_eq!(request.status(memory).unwrap(), BlkRequest::OK);
            let bytes = request.bytes(memory).unwrap();
            if bytes != write_at(place) && bytes != [sector_byte(read_at(place)); SECTOR] {
                return Err(format!("the read at {place} finds something else"));
            }
        }
        Ok(())
    }

    fn is_done(&self, sector: u64) -> bool {
        self.open.values().all(|&(place, _)| place != sector)
    }

    /// Writes over what is done and must not be touched any more. Returns those sectors.
    fn tamper(&self) -> Vec<u64> {
        let done: Vec<_> = (0..WRITES).filter(|&sector| self.is_done(sector)).collect();
        done.iter().for_each(|&sector| self.image.write(sector, &TAMPERED));
        done
    }

    fn check(&self, tampered: &[u64]) -> Result<(), String> {
        for sector in 0..WRITES {
            let written = write_at(sector);
            let expected = if tampered.contains(&sector) { TAMPERED } else { written };
            if self.image.read(sector, SECTOR) != expected {
                return Err(format!("sector {sector} is not as it was left"));
            }
        }
        Ok(())
    }
}

/// A process that dies, one that dies a little later, and one that finishes.
fn work(step: Step, count: u32, mistake: Option<Mistake>) -> Result<bool, String> {
    let mut work = Work::new(mistake);
    let died = work.run(Some((step, count)))?;
    let done = work.tamper();
    work.run(Some((step, 2)))?;
    work.run(None)?;
    work.check(&done)?;
    Ok(died)
}

#[test]
fn a_death_at_any_step_loses_and_repeats_nothing() {
    for step in Step::ALL {
        for count in [1, 4, 23] {
            let died = work(step, count, None).unwrap_or_else(|e| panic!("{step:?}:{count}: {e}"));
            // A disk gives nothing back.
            assert_eq!(died, !matches!(step, Step::Returned | Step::Forgotten), "{step:?}:{count}");
        }
    }
}

#[test]
fn a_disk_that_does_what_is_done_again_is_found_out() {
    let mut lives = [(Step::Recorded, 10), (Step::Acted, 11), (Step::Settled, 9)].into_iter();
    assert!(lives.any(|(step, count)| work(step, count, Some(Mistake::Uncleared)).is_err()));
}

#[test]
fn a_ring_that_stops_right_after_a_recovery_has_nothing_in_flight() {
    for _ in 0..5 {
        let mut work = Work::new(None);
        assert!(work.run(Some((Step::Recorded, 5))).unwrap());
        let _process = work.image.serve(&[]);
        let mut device = work.survivor.attach(work.image.socket()).unwrap();
        let base = device.stop_queue(&work.survivor.queue).unwrap();
        assert!(base >= 5, "{base}");
        assert_eq!(work.survivor.queue.ring().used_index().unwrap(), base);
    }
}
