//! `cargo xtask bench blk`: what a disk's process makes of requests, beside qemu-storage-daemon in
//! its settings and with `fio` on the same file as the limit. On this machine at its own speed: a
//! software driver stands for the guest. Runs are short and in turn; figures are medians of them, and
//! ratios those of the median pair.

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

use crate::bench::memory;
use lane::Figures;
use server::{SERVERS, Server};
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
    let wanted = std::env::var("ATOLL_BENCH").unwrap_or_default();
    let wanted = |cell: &Cell| {
        let name = cell.name();
        wanted.split_whitespace().all(|word| name.split_whitespace().any(|part| part == word))
    };
    let cells: Vec<Cell> = work::cells().filter(wanted).collect();
    let mut runs = Runs::new();
    let mut resident = BTreeMap::new();
    for _ in 0..ROUNDS {
        for backing in Backing::ALL {
            let cells: Vec<_> = cells.iter().filter(|cell| cell.backing == backing).collect();
            if cells.is_empty() {
                continue;
            }
            let disk = Disk::new(backing)?;
            for server in SERVERS {
                let kib = serve(server, &disk, &cells, &mut runs)?;
                resident.insert(server.name, kib);
            }
            for cell in cells.into_iter().filter(|cell| cell.queues == 1) {
                runs.entry((*cell, fio::NAME)).or_default().push(fio::run(cell, &disk)?);
            }
        }
    }
    cells.iter().for_each(|cell| print(cell, &runs));
    println!("\n{:<36}{:>12}", "private memory after all that", "KiB");
    resident.iter().for_each(|(name, kib)| println!("{name:<36}{kib:>12}"));
    Ok(ExitCode::SUCCESS)
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
        Ok(Self { path, file, backing, _scratch: scratch })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is in a folder of ours goes with that.
        let _gone = std::fs::remove_file(&self.path);
    }
}

fn print(cell: &Cell, runs: &Runs) {
    let of = |name: &'static str| runs.get(&(*cell, name)).map(|runs| lane::median(runs));
    let Some(peers) = runs.get(&(*cell, server::PEER)) else { return };
    println!("\n{}", cell.name());
    let columns = ["IOPS", "ratio", "p50 us", "p99 us", "CPU ns", "ratio"];
    print!("{:<36}", "");
    columns.iter().for_each(|column| print!("{column:>10}"));
    println!();
    for name in SERVERS.iter().map(|server| server.name).chain([fio::NAME]) {
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
