//! The same under the real VMM: it notices its child's death, starts another and hands it the
//! rings, while a guest of some hundred instructions reads one sector after the other.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use atoll_tests::bare_guest::{self, ANSWERED};
use atoll_tests::image::{Image, MIB};
use atoll_tests::process::Process;
use atoll_tests::procfs;
use atoll_tests::scratch::Scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(super) const NAME: &str = "child of atoll, with a guest";

/// Longer than any recovery.
const PATIENCE: Duration = Duration::from_secs(30);

/// A child that dies early is left alone for longer each time; one that lived for a second is not.
const HEALTH: Duration = Duration::from_millis(1200);

/// Deaths are rare here: each waits for health.
const MOST: usize = 50;

/// Kills the disk's process `deaths` times, or [`MOST`].
pub(super) fn deaths(deaths: usize) -> Result<Vec<Duration>> {
    let (scratch, disk) = (Scratch::new(), Image::blank(MIB));
    let kernel = scratch.write("kernel", bare_guest::kernel(1));
    let serial = scratch.join("serial");
    let option = |name: &str, path: &Path| format!("{name}={}", path.display());
    let mut vmm = Process::ours(
        "atoll",
        [
            "run",
            "--memory",
            "128M",
            "--grace",
            "0",
            "--kernel",
            &kernel.display().to_string(),
            "--serial",
            &option("file", &serial),
            "--disk",
            &option("path", disk.path()),
        ],
    );
    await_answers(&serial, 0, &mut vmm)?;
    let mut times = Vec::new();
    // A pause before each, so some have to do.
    for _ in 0..deaths.min(MOST) {
        std::thread::sleep(HEALTH);
        let (pid, _) =
            procfs::children(vmm.pid()).pop_first().context("the disk has no process")?;
        let start = Instant::now();
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
        // The answer to the one in flight may have been given already.
        let before = answers(&serial);
        await_answers(&serial, before + 1, &mut vmm)?;
        times.push(start.elapsed());
    }
    Ok(times)
}

/// Waits for one answer more than `count`.
fn await_answers(serial: &Path, count: usize, vmm: &mut Process) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while answers(serial) <= count {
        ensure!(vmm.is_running(), "the VMM has ended: {}", vmm.stderr());
        ensure!(Instant::now() < deadline, "no answer in {PATIENCE:?}: {}", vmm.stderr());
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn answers(serial: &Path) -> usize {
    let said = fs::read(serial).unwrap_or_default();
    said.iter().filter(|byte| **byte == ANSWERED).count()
}
