//! What devices cost that nobody uses: 64 of them, their rings started, and a VMM that has 64.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use atoll_driver::Process;
use atoll_tests::requirement::Requirement::AnyKvm;
use atoll_tests::scratch::Scratch;
use atoll_tests::{payload, procfs, program};

use super::load::{self, Disk, Load};
use crate::bench::memory;

const DEVICES: usize = 64;

/// How long they are watched doing nothing.
const WATCH: Duration = Duration::from_secs(10);

/// Measures and prints both.
pub(super) fn print() -> Result<()> {
    println!("\n{DEVICES} idle devices");
    println!("{:<34}{:>14}{:>14}", "", "CPU, %", "own KiB each");
    backends()?;
    match AnyKvm.lacking() {
        None => machine(),
        Some(reason) => {
            println!("atoll: not measured: {reason}");
            Ok(())
        }
    }
}

/// Device processes with a front-end each, their queues served before and silent now.
fn backends() -> Result<()> {
    let (disk, scratch) = (Disk::new(), Scratch::new());
    let mut served = Vec::new();
    for number in 0..DEVICES {
        let socket = scratch.join(&number.to_string());
        let option = format!("--socket-path={}", socket.display());
        let process =
            Process::spawn(&load::program()?, disk.options().into_iter().chain([option]))?;
        let mut load = Load::new(1)?;
        let front_end = load.survivor.attach(&socket)?;
        load.fill()?;
        load.finish()?;
        served.push((process, front_end, load));
    }
    let cpu = || -> Result<u64> {
        served.iter().map(|(process, _, _)| Ok(process.cpu_nanoseconds()?)).sum()
    };
    let before = cpu()?;
    std::thread::sleep(WATCH);
    let used = cpu()?.saturating_sub(before);
    let own: u64 = served.iter().filter_map(|(process, _, _)| memory::private(process.id())).sum();
    row("atoll-blk, all of them", used, own / DEVICES as u64);
    Ok(())
}

/// A VMM whose guest does nothing, with as many disks.
fn machine() -> Result<()> {
    let (disk, scratch) = (Disk::new(), Scratch::new());
    let kernel = scratch.write("kernel", payload::kernel(payload::HALT));
    let mut command = Command::new(program::ours("atoll"));
    command.args(["run", "--memory", "128M", "--serial", "off", "--grace", "0", "--kernel"]);
    command.arg(kernel);
    let sockets: Vec<_> = (0..DEVICES).map(|number| scratch.join(&number.to_string())).collect();
    let mut processes = Vec::new();
    for socket in &sockets {
        let option = format!("--socket-path={}", socket.display());
        let options = disk.options().into_iter().chain([option]);
        processes.push(Process::spawn(&load::program()?, options)?);
        command.arg("--device").arg(format!("blk,socket={}", socket.display()));
    }
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let mut atoll = Process::run(&mut command)?;
    // The guest runs when every device is there, and is at rest soon after.
    atoll_tests::wait_for("the machine's start", || {
        let threads = procfs::threads(atoll.id());
        threads.values().any(|thread| thread.name.starts_with("vcpu")).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    ensure!(atoll.running()?, "the VMM has ended");
    let before = atoll.cpu_nanoseconds()?;
    std::thread::sleep(WATCH);
    let used = atoll.cpu_nanoseconds()?.saturating_sub(before);
    let own = memory::private(atoll.id()).context("the VMM is gone")?;
    row("atoll with them", used, own / DEVICES as u64);
    Ok(())
}

fn row(name: &str, cpu: u64, kib: u64) {
    let percent = cpu as f64 / WATCH.as_nanos() as f64 * 100.0;
    println!("{name:<34}{percent:>14.3}{kib:>14}");
}
