//! `cargo xtask bench`: figures by which Atoll is compared with others, all taken in one boot of
//! the place where guests run.

pub(crate) mod boot;

mod counters;
mod memory;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::inner::{self, Act};
use crate::workspace::{self, Profile};
use crate::{guest, kvm, packages};

/// What to measure.
#[derive(Clone, Copy, Subcommand)]
pub(crate) enum Measure {
    /// Time, exits and memory from a VMM's start to its guest's user space, beside QEMU's
    Boot,
}

/// The task.
pub(crate) fn main(measure: Measure) -> Result<ExitCode> {
    packages::ensure()?;
    let guest = guest::ensure()?;
    let programs = workspace::programs(Profile::Release)?;
    let place = kvm::place(&programs, &guest)?;
    match measure {
        Measure::Boot => inner::run(Act::Boot, &place, &programs, &guest),
    }
}
