//! `cargo xtask demo`: a Debian guest whose disk, network and console are processes of their own,
//! with its console in your hands, or on a tour.

pub(crate) mod tour;

use std::io::{IsTerminal, stdin};
use std::process::{Command, ExitCode};
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use atoll_tests::image::Image;
use atoll_tests::network::Tap;
use atoll_tests::{artifacts, program};

use crate::inner::{self, Act};
use crate::workspace::{self, Profile};
use crate::{guest, kvm, packages};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Play a tour of the guest instead of handing it over; as without a terminal
    #[arg(long)]
    tour: bool,
}

/// The task.
pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    packages::ensure()?;
    let guest = guest::ensure()?;
    let programs = workspace::programs(Profile::Release)?;
    let place = kvm::place(&programs, &guest)?;
    let act = if args.tour || !stdin().is_terminal() { Act::Tour } else { Act::Shell };
    inner::run(act, &place, &programs, &guest)
}

/// Boots the guest with its console on this terminal; ends as the VMM does.
pub(crate) fn shell() -> Result<ExitCode> {
    let _way_out = way_out();
    let root = Image::debian();
    eprintln!(
        "`poweroff` in the guest ends this; its network is what this user may use, and this host is \
         its gateway"
    );
    let status = Command::new(program::ours("atoll"))
        .args(["run", "--memory", "512M", "--console", "stdio", "--cpus"])
        .arg(vcpus().to_string())
        .arg("--kernel")
        .arg(artifacts::get("vmlinux"))
        .arg("--initrd")
        .arg(artifacts::get("initramfs.cpio.gz"))
        .arg("--cmdline")
        .arg("root=/dev/vda rw quiet net=dhcp")
        .arg("--disk")
        .arg(format!("path={}", root.path().display()))
        .args(["--net", "user"])
        .status()
        .context("cannot start atoll")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, Into::into))
}

/// passt gives a guest what the host has, and the lab has nothing: there it gets a network that
/// leads to the lab alone.
fn way_out() -> Option<Tap> {
    std::env::var_os("ATOLL_LAB")?;
    let tap = Tap::new();
    tap.be_way_out();
    Some(tap)
}

/// Two vCPUs, where the host has as many processors to run them on.
fn vcpus() -> u32 {
    if available_parallelism().is_ok_and(|processors| processors.get() >= 2) { 2 } else { 1 }
}
