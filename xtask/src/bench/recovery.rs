//! `cargo xtask bench recovery`: what a device process's death costs, on this machine at its own
//! speed. A software driver stands for the guest, so that nothing but the device process, its
//! supervisor and the protocol is measured; where there is a /dev/kvm, the VMM with a guest of some
//! hundred instructions as well.

mod death;
mod idle;
mod load;
mod machine;
mod tracking;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use atoll_tests::requirement::Requirement::AnyKvm;

use death::{STYLES, Style};

/// Deaths per figure.
const DEATHS: usize = 200;

/// Requests in flight.
const DEPTHS: [usize; 2] = [1, 32];

/// Measures and prints it all. Run as a release build: the driver is part of the time.
pub(crate) fn measure() -> Result<ExitCode> {
    println!("from a device process's end to the first request completed by the next, ms");
    println!("{:<34}{:>8}{:>10}{:>10}{:>10}", "", "depth", "p50", "p99", "deaths");
    for style in STYLES {
        for depth in DEPTHS {
            row(style.name(), depth, &mut death::measure(style, depth, DEATHS)?);
        }
    }
    match AnyKvm.lacking() {
        None => row(machine::NAME, 1, &mut machine::deaths(DEATHS)?),
        Some(reason) => println!("{}: not measured: {reason}", machine::NAME),
    }
    tracking::print()?;
    idle::print()?;
    Ok(ExitCode::SUCCESS)
}

fn row(name: &str, depth: usize, times: &mut [Duration]) {
    times.sort();
    let at = |percent: usize| {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    };
    let count = times.len();
    println!("{name:<34}{depth:>8}{:>10.2}{:>10.2}{count:>10}", at(50), at(99));
}

impl Style {
    fn name(self) -> &'static str {
        match self {
            Self::Child => "child on a new socket pair",
            Self::Service => "unit with a socket, RestartSec=50ms",
            Self::Swap => "swap to a process that waits",
        }
    }
}
