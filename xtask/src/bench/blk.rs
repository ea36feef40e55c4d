//! `cargo xtask bench blk`: what a disk's process makes of requests, beside qemu-storage-daemon in
//! its settings and with `fio` on the same file as the limit. On this machine at its own speed: a
//! software driver stands for the guest. Runs are short and in turn; figures are medians of them, and
//! ratios those of the median pair.

mod busy;
mod fio;
mod lane;
mod server;
mod work;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result};
use atoll_tests::scratch::Scratch;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::bench::memory;
use busy::Busy;
use lane::Figures;
use server::{SERVERS, Server, WINDOWS};
use work::{Backing, Cell};

/// Runs of each.
const ROUNDS: usize = 5;

/// The disk's size. It fits into the page cache, and is no cache's of the disk itself.
const DISK: u64 = 512 << 20;

/// Runs by what was asked and who served.
type Runs = BTreeMap<(Cell, &'static str), Vec<Figures>>;

/// Measures and prints it all. Run as a release build: the driver is part of the time.
/// `ATOLL_BENCH` with words such as `cached` or `depth-1` leaves out what lacks one of them.
pub(crate) fn measure() -> Result<ExitCode> {
    let cells = wanted(|_| true);
    let (runs, resident) = run(SERVERS, &cells, true)?;
    cells.iter().for_each(|cell| print(cell, SERVERS, &runs));
    println!("\n{:<36}{:>12}", "private memory after all that", "KiB");
    resident.iter().for_each(|(name, kib)| println!("{name:<36}{kib:>12}"));
    Ok(ExitCode::SUCCESS)
}

/// What it is worth to look at a queue before going to sleep, by how long: with CPUs to spare, and
/// with something on each that wants all of it.
pub(crate) fn measure_polling() -> Result<ExitCode> {
    let cells = wanted(|cell| cell.is_small() && cell.backing != Backing::Memory);
    for busy in [false, true] {
        println!("\n{}", if busy { "CPUS BUSY WITH SOMETHING ELSE" } else { "CPUS TO SPARE" });
        let busy = busy.then(Busy::start);
        let (runs, _resident) = run(WINDOWS, &cells, false)?;
        drop(busy);
        cells.iter().for_each(|cell| print(cell, WINDOWS, &runs));
    }
    Ok(ExitCode::SUCCESS)
}

/// The cells that are asked for.
fn wanted(of: impl Fn(&Cell) -> bool) -> Vec<Cell> {
    let wanted = std::env::var("ATOLL_BENCH").unwrap_or_default();
    let named = |cell: &Cell| {
        let name = cell.name();
        wanted.split_whitespace().all(|word| name.split_whitespace().any(|part| part == word))
    };
    work::cells().filter(|cell| of(cell) && named(cell)).collect()
}

/// All cells on each server, and by fio as the limit. Returns with the runs each server's private
/// memory at the end, in KiB.
fn run(
    servers: &'static [Server],
    cells: &[Cell],
    limit: bool,
) -> Result<(Runs, BTreeMap<&'static str, u64>)> {
    let (mut runs, mut resident) = (Runs::new(), BTreeMap::new());
    for round in 0..ROUNDS {
        for backing in Backing::ALL {
            let cells: Vec<_> = cells.iter().filter(|cell| cell.backing == backing).collect();
            if cells.is_empty() {
                continue;
            }
            let disk = Disk::new(backing)?;
            // Each is the first one at times: a new file is not what it is later, and a host that
            // limits what its guests do may let them do more at first.
            for server in servers.iter().cycle().skip(round).take(servers.len()) {
                let kib = serve(server, &disk, &cells, &mut runs)?;
                resident.insert(server.name, kib);
            }
            for cell in cells.into_iter().filter(|cell| limit && cell.queues == 1) {
                runs.entry((*cell, fio::NAME)).or_default().push(fio::run(cell, &disk)?);
            }
        }
    }
    Ok((runs, resident))
}

/// All cells on one process. Returns its private memory at the end, in KiB.
fn serve(server: &'static Server, disk: &Disk, cells: &[&Cell], runs: &mut Runs) -> Result<u64> {
    let queues = cells.iter().map(|cell| cell.queues).max().unwrap_or(1);
    let mut served = server.start(disk, queues)?;
    for cell in cells {
        let figures =
            served.run(cell).with_context(|| format!("{}: {}", server.name, cell.name()))?;
        runs.entry((**cell, server.name)).or_default().push(figures);
        // What is left to be written is not the next one's to wait for.
        disk.file.sync_data().context("cannot sync the disk")?;
    }
    memory::private(served.process.id()).context("the process has ended")
}

/// A disk's file, filled.
struct Disk {
    path: std::path::PathBuf,
    file: File,
    backing: Backing,
    _scratch: Scratch,
}

impl Disk {
    fn new(backing: Backing) -> Result<Self> {
        let scratch = Scratch::new();
        let path = match backing {
            Backing::Memory => format!("/dev/shm/atoll-bench.{}", std::process::id()).into(),
            _ => scratch.join("disk"),
        };
        let mut file = File::create(&path).context("cannot make a disk")?;
        // Nothing is faster than what was never written.
        file.set_len(DISK).context("cannot make a disk")?;
        if backing != Backing::Memory {
            // In small pieces, for the page cache keeps what came in large ones in large ones, in
            // which ext4 takes long to find the place of a small write.
            let block = vec![0x5a; 4 << 10];
            for _ in 0..DISK / block.len() as u64 {
                file.write_all(&block).context("cannot fill a disk")?;
            }
            file.sync_all().context("cannot sync a disk")?;
        }
        if backing == Backing::Direct {
            // A write past the page cache is slow where that has what it overwrites.
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
                .context("cannot empty the page cache")?;
        }
        Ok(Self { path, file, backing, _scratch: scratch })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is in a folder of ours goes with that.
        let _gone = std::fs::remove_file(&self.path);
    }
}

fn print(cell: &Cell, servers: &[Server], runs: &Runs) {
    let of = |name: &'static str| runs.get(&(*cell, name)).map(|runs| lane::median(runs));
    let Some(peers) = runs.get(&(*cell, server::PEER)) else { return };
    println!("\n{}", cell.name());
    let columns = ["IOPS", "ratio", "p50 us", "p99 us", "CPU ns", "ratio"];
    print!("{:<36}", "");
    columns.iter().for_each(|column| print!("{column:>10}"));
    println!();
    for name in servers.iter().map(|server| server.name).chain([fio::NAME]) {
        let Some(figures) = of(name) else { continue };
        let Figures { rate, p50, p99, cpu } = figures;
        // Of the median pair: what else the machine does meets both of it.
        let ours = runs.get(&(*cell, name)).map_or(&[][..], Vec::as_slice);
        let more = lane::median_ratio(ours, peers, |run| run.rate);
        let cheaper = lane::median_ratio(ours, peers, |run| run.cpu);
        println!(
            "{name:<36}{rate:>10.0}{more:>10.2}{p50:>10.1}{p99:>10.1}{cpu:>10.0}{cheaper:>10.2}"
        );
    }
}
