//! A vCPU's loop: enter the guest, see why it was left, do what it asked for.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::ops::ControlFlow;
use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd};
use nix::errno::Errno;

use super::Buses;
use super::exit::{CpuStop, Crash, Exit, Exits};
use super::gate::{Gate, Passed};
use super::kick::RunPage;
use crate::memory::GuestRam;

/// A vCPU in the hands of its thread.
pub(super) struct Runner {
    pub(super) index: u8,
    pub(super) fd: VcpuFd,
    pub(super) page: Arc<RunPage>,
    pub(super) buses: Buses,
    pub(super) exits: Exits,
    pub(super) gate: Arc<Gate>,
    /// KVM reaches into it while the vCPU runs.
    pub(super) _ram: Arc<GuestRam>,
}

impl Runner {
    /// Runs the vCPU until it is stopped or the guest has ended by what it did.
    pub(super) fn run(mut self) {
        if self.gate.pass() != Passed::Stop {
            while self.step().is_continue() {}
        }
        self.gate.leave();
    }

    /// Once into the guest and out again.
    fn step(&mut self) -> ControlFlow<()> {
        let stop = match self.fd.run() {
            Ok(VcpuExit::MmioRead(address, data)) => {
                self.buses.mmio.read(address, data);
                return ControlFlow::Continue(());
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                self.buses.mmio.write(address, data);
                return self.go_on();
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                for access in data.chunks_mut(self.page.port_access_size().max(1)) {
                    self.buses.pio.read(port.into(), access);
                }
                return ControlFlow::Continue(());
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                for access in data.chunks(self.page.port_access_size().max(1)) {
                    self.buses.pio.write(port.into(), access);
                }
                return self.go_on();
            }
            Ok(VcpuExit::Intr) => return self.interrupted(),
            Ok(VcpuExit::Shutdown) => CpuStop::TripleFault,
            Ok(VcpuExit::FailEntry(reason, cpu)) => CpuStop::FailEntry { reason, cpu },
            Ok(VcpuExit::MemoryFault { gpa: address, .. }) => CpuStop::MemoryFault { address },
            Ok(VcpuExit::InternalError) => self.internal_error(),
            Ok(other) => CpuStop::Unexpected(format!("{other:?}")),
            Err(error) => match Errno::from_raw(error.errno()) {
                // EAGAIN: an INIT or SIPI arrived (Documentation/virt/kvm/api.rst §4.10).
                Errno::EINTR | Errno::EAGAIN => return self.interrupted(),
                errno => CpuStop::Run(errno),
            },
        };
        let rip = self.fd.get_regs().ok().map(|regs| regs.rip);
        self.exits.report(Exit::Crash(Crash { vcpu: self.index, rip, reason: stop }));
        ControlFlow::Break(())
    }

    /// After a write, which may have been the guest's last: it must not run on after a reset.
    fn go_on(&self) -> ControlFlow<()> {
        if self.exits.reported() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn interrupted(&self) -> ControlFlow<()> {
        // In this order: a kick sets what is wanted first, so one that comes after this line is
        // seen by the next KVM_RUN, and one that came before is seen by `pass`.
        self.page.set_immediate_exit(false);
        match self.gate.pass() {
            Passed::Freely => self.go_on(),
            Passed::AfterPause => {
                // The guest's watchdogs are told that the time gone by was not theirs. Fails for a
                // guest that does not use KVM's clock and so can't be told.
                let _no_clock = self.fd.kvmclock_ctrl();
                self.go_on()
            }
            Passed::Stop => ControlFlow::Break(()),
        }
    }

    fn internal_error(&mut self) -> CpuStop {
        // SAFETY: KVM_EXIT_INTERNAL_ERROR says that this is the member of the union it filled in;
        // all of it is integers, which are valid whatever they hold.
        let internal = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal };
        let count = usize::try_from(internal.ndata).unwrap_or(usize::MAX);
        let data = internal.data.into_iter().take(count).collect();
        CpuStop::InternalError { suberror: internal.suberror, data }
    }
}
