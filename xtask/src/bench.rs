//! `cargo xtask bench`: figures by which Atoll is compared with others, taken in one boot of the
//! place where guests run, and figures of its own, taken on this machine without a kernel to boot.

pub(crate) mod blk;
pub(crate) mod boot;
pub(crate) mod console;
pub(crate) mod fio;
pub(crate) mod net;
pub(crate) mod recovery;
pub(crate) mod stall;
pub(crate) mod traffic;

mod counters;
mod cpu;
mod median;
mod memory;
mod report;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::inner::{self, Act};
use crate::workspace::{self, Profile};
use crate::{command, guest, kvm, packages};

/// What to measure.
#[derive(Clone, Copy, Subcommand)]
pub(crate) enum Measure {
    /// Requests to a disk: how many, how long, at what cost, beside qemu-storage-daemon and fio
    Blk,
    /// Time, exits and memory from a VMM's start to its guest's user space, beside QEMU's
    Boot,
    /// Bytes a second through a console to a socket and back: without a guest, then from small ones and stock
    /// ones, beside QEMU's
    Console,
    /// What a guest's own fio makes of its disk, beside QEMU's virtio-blk
    Fio,
    /// Frames through a network card: how many, how long, at what cost, beside the TAP itself
    Net,
    /// Requests to a disk by how long its queues are looked at before their threads go to sleep
    Polling,
    /// Time from a device process's end to the next one's work, the cost of being ready for it,
    /// and of idle devices
    Recovery,
    /// How long a guest's reads stand still when its disk's process is killed, beside QEMU's
    Stall,
    /// What a guest's network card carries, and at what cost, beside QEMU's and vhost-net
    Traffic,
}

/// The task.
pub(crate) fn main(measure: Measure) -> Result<ExitCode> {
    match measure {
        Measure::Blk => {
            packages::ensure()?;
            alone(Act::Blk)
        }
        Measure::Boot => with_guests(Act::Boot),
        Measure::Polling => {
            packages::ensure()?;
            alone(Act::Polling)
        }
        Measure::Fio => with_guests(Act::Fio),
        Measure::Net => {
            packages::ensure_with(packages::DPDK)?;
            alone(Act::Net)
        }
        Measure::Console => {
            packages::ensure()?;
            alone(Act::ConsoleDriver)?;
            alone(Act::ConsoleBare)?;
            with_guests(Act::Console)
        }
        Measure::Recovery => alone(Act::Recovery),
        Measure::Stall => with_guests(Act::Stall),
        Measure::Traffic => with_guests(Act::Traffic),
    }
}

/// In one boot of the place where guests run.
fn with_guests(act: Act) -> Result<ExitCode> {
    packages::ensure()?;
    let guest = guest::ensure()?;
    let programs = workspace::programs(Profile::Release)?;
    let place = kvm::place(&programs, &guest)?;
    inner::run(act, &place, &programs, &guest)
}

/// On this machine, by a release build of this program: it is part of what is timed.
fn alone(act: Act) -> Result<ExitCode> {
    let programs = workspace::programs(Profile::Release)?;
    let folder = programs.first().and_then(|path| path.parent()).context("nothing was built")?;
    let mut myself = workspace::cargo();
    myself.args(["run", "--quiet", "--release", "--package", "xtask", "--", "inner", act.name()]);
    command::run(myself.env("ATOLL_BIN", folder))?;
    Ok(ExitCode::SUCCESS)
}
