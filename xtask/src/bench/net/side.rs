//! Which CPU who has: a device's process one, its driver another, and for as long as a run takes nobody
//! moves. Else the kernel often puts both on one, and what is measured is how they take turns.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// A side of the ring.
#[derive(Clone, Copy)]
pub(super) enum Side {
    /// Who serves it.
    Device,
    /// Who fills it, and fills the queue of the TAP.
    Driver,
}

impl Side {
    /// The first CPU is the device's, the last the driver's.
    pub(super) fn cpu(self) -> Result<usize> {
        let allowed =
            sched_getaffinity(Pid::from_raw(0)).context("cannot see which CPUs there are")?;
        let mut cpus = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false));
        let cpu = match self {
            Self::Device => cpus.next(),
            Self::Driver => cpus.next_back(),
        };
        cpu.context("there are no CPUs")
    }

    /// Does something on that CPU. Processes that start meanwhile stay there.
    pub(super) fn run<T>(self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this).context("cannot see which CPUs there are")?;
        let mut only = CpuSet::new();
        only.set(self.cpu()?).context("a CPU beyond all")?;
        sched_setaffinity(this, &only).context("cannot stay on a CPU")?;
        let done = work();
        sched_setaffinity(this, &before).context("cannot leave a CPU")?;
        done
    }
}
