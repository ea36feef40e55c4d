//! vCPUs: one thread each, from the first instruction to the last.
//!
//! A vCPU's thread dispatches what the guest does to the buses and knows no device. It ends when
//! the guest has ended, which it reports as an [`Exit`], or when it is stopped.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use kvm_ioctls::{VcpuFd, VmFd};
use nix::errno::Errno;

use crate::arch::{self, Cpuid, EntryPoint, SetupError};
use crate::bus::Bus;
use crate::memory::GuestRam;

mod exit;
mod gate;
mod kick;
mod run;

pub use exit::{CpuStop, Crash, Exit, Exits};

use gate::{Gate, Wanted};
use kick::{Kicker, RunPage};
use run::Runner;

/// Why the vCPUs could not be started.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// KVM refuses one more.
    #[error("can't create vCPU {index}")]
    Create {
        /// Its number.
        index: u8,
        /// Why.
        source: Errno,
    },
    /// KVM refuses its initial state.
    #[error("can't prepare vCPU {index}")]
    Prepare {
        /// Its number.
        index: u8,
        /// Why.
        source: SetupError,
    },
    /// The page that it shares with KVM.
    #[error("can't map the run page of vCPU {index}")]
    RunPage {
        /// Its number.
        index: u8,
        /// Why.
        source: Errno,
    },
    /// The signal that stops it.
    #[error("can't set up the signal that interrupts vCPUs")]
    Signal {
        /// Why.
        source: Errno,
    },
    /// Its thread.
    #[error("can't start the thread of vCPU {index}")]
    Thread {
        /// Its number.
        index: u8,
        /// Why.
        source: io::Error,
    },
}

/// Where a vCPU's accesses go.
#[derive(Clone)]
pub struct Buses {
    /// Ports.
    pub pio: Arc<Bus>,
    /// Memory that is not RAM.
    pub mmio: Arc<Bus>,
}

/// What a machine's vCPUs start with.
pub struct Start<'a> {
    /// With memory and interrupt controllers in it.
    pub vm: &'a Arc<VmFd>,
    /// The memory in it.
    pub ram: &'a Arc<GuestRam>,
    /// How many, 1 to 64.
    pub cpus: u8,
    /// What they are.
    pub cpuid: &'a Cpuid,
    /// Where the first of them starts.
    pub entry: EntryPoint,
    /// Where their accesses go.
    pub buses: Buses,
    /// Where the guest's end is reported.
    pub exits: Exits,
}

/// The running vCPUs of a machine. Dropping it stops them.
pub struct Vcpus {
    threads: Vec<Thread>,
    gate: Arc<Gate>,
    /// With the VM's last descriptor KVM takes its irqfds away, even while its vCPUs run.
    _vm: Arc<VmFd>,
}

/// vCPUs that were told to stop.
pub struct Pausing {
    gate: Arc<Gate>,
    threads: usize,
}

impl Pausing {
    /// Returns when the last has stopped, or they were told to go on; false when `patience` is over.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        self.gate.wait_all_parked(self.threads, patience)
    }
}

struct Thread {
    handle: JoinHandle<()>,
    kicker: Kicker,
}

impl Vcpus {
    /// Creates all vCPUs, then starts their threads.
    ///
    /// # Errors
    /// [`VcpuError`], with no thread left running.
    pub fn start(start: &Start<'_>) -> Result<Self, VcpuError> {
        kick::install().map_err(|source| VcpuError::Signal { source })?;
        let created: Result<Vec<_>, _> =
            (0..start.cpus).map(|index| Ok((index, create(start, index)?))).collect();
        let created = created?;
        let (gate, vm) = (Arc::new(Gate::new()), Arc::clone(start.vm));
        let mut vcpus = Self { threads: Vec::new(), gate, _vm: vm };
        for (index, (fd, page)) in created {
            // On failure, dropping `vcpus` stops those that run already.
            vcpus.threads.push(vcpus.spawn(start, index, fd, page)?);
        }
        Ok(vcpus)
    }

    /// Stops every vCPU where it is, and returns when the last has stopped. [`Vcpus::resume`] lets
    /// them go on.
    pub fn pause(&self) {
        let pausing = self.start_pause();
        while !pausing.wait(Duration::MAX) {}
    }

    /// Tells every vCPU to stop where it is, and does not wait.
    pub fn start_pause(&self) -> Pausing {
        self.gate.set(Wanted::Pause);
        self.kick();
        Pausing { gate: Arc::clone(&self.gate), threads: self.threads.len() }
    }

    /// Lets paused vCPUs go on.
    pub fn resume(&self) {
        self.gate.set(Wanted::Run);
    }

    fn spawn(
        &self,
        start: &Start<'_>,
        index: u8,
        fd: VcpuFd,
        page: Arc<RunPage>,
    ) -> Result<Thread, VcpuError> {
        let runner = Runner {
            index,
            fd,
            page: page.clone(),
            buses: start.buses.clone(),
            exits: start.exits.clone(),
            gate: self.gate.clone(),
            _ram: start.ram.clone(),
        };
        let handle = Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(move || runner.run())
            .map_err(|source| VcpuError::Thread { index, source })?;
        Ok(Thread { handle, kicker: Kicker::new(page) })
    }

    /// Makes every vCPU leave the guest and look at what is wanted of it.
    fn kick(&self) {
        for thread in &self.threads {
            thread.kicker.kick(&thread.handle);
        }
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.gate.set(Wanted::Stop);
        self.kick();
        for thread in self.threads.drain(..) {
            // The run loop does not panic; if it did, the panic is on stderr already.
            let _ended = thread.handle.join();
        }
    }
}

fn create(start: &Start<'_>, index: u8) -> Result<(VcpuFd, Arc<RunPage>), VcpuError> {
    let fd = start
        .vm
        .create_vcpu(index.into())
        .map_err(|error| VcpuError::Create { index, source: Errno::from_raw(error.errno()) })?;
    let entry = (index == 0).then_some(&start.entry);
    arch::prepare_vcpu(&fd, index, start.cpuid, entry)
        .map_err(|source| VcpuError::Prepare { index, source })?;
    let page = RunPage::map(&fd).map_err(|source| VcpuError::RunPage { index, source })?;
    Ok((fd, Arc::new(page)))
}
