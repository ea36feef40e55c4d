//! `cargo xtask bench net`: what a network card's process makes of frames, beside a plain program that
//! reads and writes the TAP itself as the limit. On this machine at its own speed: a software driver
//! stands for the guest. Runs are short and in turn; figures are medians of them, and ratios those of
//! the median pair.

mod card;
mod dpdk;
mod limit;
mod reply;
mod side;
mod wire;
mod work;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bench::median::median as middle;
use crate::bench::memory;
use card::Card;
use dpdk::Dpdk;
use limit::Limit;
use work::{Cell, Contender, Figures, Way};

/// Runs of each.
const ROUNDS: usize = 7;

/// How long a process is watched at rest.
const REST: Duration = Duration::from_secs(5);

/// Runs by what was asked and of whom.
type Runs = BTreeMap<(Cell, &'static str), Vec<Figures>>;

/// Measures and prints it all. Run as a release build: the driver is part of the time.
/// `ATOLL_BENCH` with words such as `round-trip` or `64-bytes` leaves out what lacks one of them.
pub(crate) fn measure() -> Result<ExitCode> {
    let wanted = std::env::var("ATOLL_BENCH").unwrap_or_default();
    let wanted = |cell: &Cell| {
        let name = cell.name();
        wanted.split_whitespace().all(|word| name.split_whitespace().any(|part| part == word))
    };
    let cells: Vec<Cell> = work::cells().filter(wanted).collect();
    wire::enter()?;
    let mut limit = Limit::new("tap0", 0)?;
    let mut ours = Card::start("atoll-net", "tap1", 1, &[])?;
    let mut polls = Card::start("atoll-net --poll-us=100", "tap2", 2, &["--poll-us=100"])?;
    let mut dpdk = if Dpdk::is_here() {
        vec![Dpdk::on_ours("tap3", 3)?, Dpdk::on_theirs("tap4", 4)?]
    } else {
        Vec::new()
    };
    let mut contenders: Vec<&mut dyn Contender> = vec![&mut limit, &mut ours, &mut polls];
    contenders.extend(dpdk.iter_mut().map(|dpdk| dpdk as &mut dyn Contender));
    let mut runs = Runs::new();
    for _ in 0..ROUNDS {
        for cell in &cells {
            for contender in &mut contenders {
                let name = contender.name();
                let figures = contender.run(*cell);
                let figures = figures.with_context(|| format!("{name}: {}", cell.name()))?;
                runs.entry((*cell, name)).or_default().push(figures);
            }
        }
    }
    let names: Vec<_> = contenders.iter().map(|contender| contender.name()).collect();
    cells.iter().for_each(|cell| print(cell, &names, &runs));
    let before = ours.process().cpu_nanoseconds()?;
    thread::sleep(REST);
    let at_rest = ours.process().cpu_nanoseconds()? - before;
    let kib = memory::private(ours.process().id()).context("the process has ended")?;
    println!("\n{} after all that: {kib} KiB of private memory", ours.name());
    println!("{} at rest for {REST:?}: {at_rest} ns of CPU time", ours.name());
    Ok(ExitCode::SUCCESS)
}

fn print(cell: &Cell, names: &[&'static str], runs: &Runs) {
    let Some(limits) = runs.get(&(*cell, limit::NAME)) else { return };
    println!("\n{}", cell.name());
    let columns: &[&str] = match cell.way {
        Way::RoundTrip => &["p50 us", "ratio", "p99 us", "ratio", "CPU ns"],
        _ => &["packets/s", "ratio", "CPU ns", "ratio", "s/Gbit"],
    };
    print!("{:<44}", "");
    columns.iter().for_each(|column| print!("{column:>11}"));
    println!();
    for name in names {
        let Some(ours) = runs.get(&(*cell, *name)) else { continue };
        let median = |of: fn(&Figures) -> f64| middle(ours.iter().map(of));
        // Of the median pair: what else the machine does meets both of it.
        let ratio =
            |of: fn(&Figures) -> f64| middle(ours.iter().zip(limits).map(|(a, b)| of(a) / of(b)));
        let cpu = median(|run| run.cpu);
        print!("{name:<44}");
        match cell.way {
            Way::RoundTrip => {
                print!("{:>11.1}{:>11.2}", median(|run| run.p50), ratio(|run| run.p50));
                print!("{:>11.1}{:>11.2}{cpu:>11.0}", median(|run| run.p99), ratio(|run| run.p99));
            }
            _ => {
                print!("{:>11.0}{:>11.2}", median(|run| run.rate), ratio(|run| run.rate));
                let gigabit = cpu / (8.0 * cell.len as f64);
                print!("{cpu:>11.0}{:>11.2}{gigabit:>11.3}", ratio(|run| run.cpu));
            }
        }
        println!();
    }
}
