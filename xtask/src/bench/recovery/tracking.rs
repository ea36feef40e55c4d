//! What the record of requests in flight costs: the same load with it and without.

use std::time::{Duration, Instant};

use anyhow::Result;
use atoll_driver::Process;
use atoll_tests::scratch::Scratch;

use super::load::{self, Disk, Load};
use crate::bench::median::median;

const DEPTH: usize = 32;

/// Requests per run; long against a start, short against what else the machine does.
const REQUESTS: usize = 200_000;

/// Runs of each, in turn: neighbours in time have the same machine to themselves, so that the cost is
/// the median of what each pair says.
const RUNS: usize = 25;

/// One run.
#[derive(Clone, Copy)]
struct Run {
    /// Requests per second.
    rate: f64,
    /// The process's time on a CPU per request, ns.
    cpu: f64,
}

/// Measures both and prints them.
pub(super) fn print() -> Result<()> {
    let mut runs: [Vec<Run>; 2] = Default::default();
    // One to warm up.
    run(true)?;
    for _ in 0..RUNS {
        for (tracked, runs) in [true, false].into_iter().zip(&mut runs) {
            runs.push(run(tracked)?);
        }
    }
    let [tracked, untracked] = runs;
    println!("\n4 KiB reads from the page cache at depth {DEPTH}, median of {RUNS} pairs of runs");
    println!("{:<34}{:>14}{:>14}{:>10}", "", "with record", "without", "cost");
    let row = |name: &str, of: fn(&Run) -> f64, sign: f64| {
        let all = |runs: &[Run]| runs.iter().map(of).collect::<Vec<_>>();
        let (with, without) = (all(&tracked), all(&untracked));
        let ratios = with.iter().zip(&without).map(|(with, without)| with / without);
        let cost = (median(ratios) - 1.0) * 100.0 * sign;
        let (with, without) = (median(with), median(without));
        println!("{name:<34}{with:>14.0}{without:>14.0}{cost:>9.1}%");
    };
    row("requests per second", |run| run.rate, -1.0);
    row("atoll-blk's CPU per request, ns", |run| run.cpu, 1.0);
    Ok(())
}

fn run(tracked: bool) -> Result<Run> {
    let (disk, scratch) = (Disk::new(), Scratch::new());
    let socket = scratch.join("disk");
    let option = format!("--socket-path={}", socket.display());
    let process = Process::spawn(&load::program()?, disk.options().into_iter().chain([option]))?;
    let mut load = Load::new(DEPTH)?;
    let _front_end = if tracked {
        load.survivor.attach(&socket)?
    } else {
        load.survivor.attach_untracked(&socket)?
    };
    load.fill()?;
    load.run(REQUESTS / 20)?;
    let (cpu, start) = (process.cpu_nanoseconds()?, Instant::now());
    load.run(REQUESTS)?;
    let (elapsed, cpu) = (start.elapsed(), process.cpu_nanoseconds()?.saturating_sub(cpu));
    load.finish()?;
    let requests = REQUESTS as f64;
    Ok(Run {
        rate: requests / elapsed.max(Duration::from_nanos(1)).as_secs_f64(),
        cpu: cpu as f64 / requests,
    })
}
