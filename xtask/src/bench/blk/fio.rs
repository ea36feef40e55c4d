//! The same work by `fio` on the file itself: no queue between two processes, so the limit.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Disk;
use super::lane::Figures;
use super::work::{Backing, Cell, Pattern};
use crate::bench::report::Report;

pub(super) const NAME: &str = "fio io_uring on the file itself";

pub(super) fn run(cell: &Cell, disk: &Disk) -> Result<Figures> {
    let (pattern, side) = match cell.pattern {
        Pattern::RandomRead => ("randread", "read"),
        Pattern::RandomWrite => ("randwrite", "write"),
        Pattern::SequentialRead => ("read", "read"),
    };
    let direct = u8::from(cell.backing == Backing::Direct);
    let output = Command::new("fio")
        .args(["--name=limit", "--ioengine=io_uring", "--time_based", "--runtime=250ms"])
        .args(["--norandommap", "--randrepeat=0", "--invalidate=0", "--output-format=json"])
        .args(["--thread", "--ramp_time=40ms"])
        .arg(format!("--filename={}", disk.path.display()))
        .arg(format!("--size={}", super::DISK))
        .arg(format!("--bs={}", cell.pattern.block()))
        .arg(format!("--rw={pattern}"))
        .arg(format!("--iodepth={}", cell.depth))
        .arg(format!("--direct={direct}"))
        .output()
        .context("cannot start fio")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "fio failed: {said}");
    let report = Report::of(&String::from_utf8_lossy(&output.stdout))?;
    let rate = report.number(&format!("/{side}/iops"))?;
    let percent = report.number("/usr_cpu")? + report.number("/sys_cpu")?;
    Ok(Figures {
        rate,
        p50: report.number(&format!("/{side}/clat_ns/percentile/50.000000"))? / 1e3,
        p99: report.number(&format!("/{side}/clat_ns/percentile/99.000000"))? / 1e3,
        cpu: percent / 100.0 * 1e9 / rate,
    })
}
