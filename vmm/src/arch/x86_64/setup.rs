//! A VM and its vCPUs, from what KVM makes them to what a kernel's first instruction expects.

use kvm_bindings::{kvm_lapic_state, kvm_regs};
use kvm_ioctls::{VcpuFd, VmFd};
use nix::errno::Errno;

use super::{Cpuid, EntryPoint, layout, msr};

/// KVM refused a part of the machine.
#[derive(Debug, thiserror::Error)]
#[error("can't set up {what} with KVM")]
pub struct SetupError {
    pub(super) what: &'static str,
    pub(super) source: Errno,
}

fn failed(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> SetupError {
    move |error| SetupError { what, source: Errno::from_raw(error.errno()) }
}

/// Puts the interrupt controllers into a new VM: PICs, I/O APIC, and a local APIC for each vCPU to
/// come. There is no PIT: every guest of ours has the local APIC's timer.
///
/// # Errors
/// [`SetupError`]
pub fn prepare_vm(vm: &VmFd) -> Result<(), SetupError> {
    // Both have to stand before the first vCPU, and are used only where the processor is too old
    // to run real mode code.
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP).map_err(failed("the identity map"))?;
    // All of the hole fits a usize, as it is below 4 GiB.
    vm.set_tss_address(layout::KVM_TSS as usize).map_err(failed("the task state segment"))?;
    vm.create_irq_chip().map_err(failed("the interrupt controllers"))
}

/// Puts vCPU `index` into the state it has when the machine is switched on; with an entry point
/// into the one that the boot protocol asks for. The others wait for INIT and SIPI.
///
/// # Errors
/// [`SetupError`]
pub fn prepare_vcpu(
    vcpu: &VcpuFd,
    index: u8,
    cpuid: &Cpuid,
    entry: Option<&EntryPoint>,
) -> Result<(), SetupError> {
    let leaves = cpuid
        .of_vcpu(index)
        .map_err(|_too_many| SetupError { what: "CPUID", source: Errno::E2BIG })?;
    vcpu.set_cpuid2(&leaves).map_err(failed("CPUID"))?;
    msr::set(vcpu)?;
    route_local_interrupts(vcpu)?;
    let Some(entry) = entry else { return Ok(()) };
    let mut sregs = vcpu.get_sregs().map_err(failed("the segment registers"))?;
    entry.set_sregs(&mut sregs);
    vcpu.set_sregs(&sregs).map_err(failed("the segment registers"))?;
    let mut regs = kvm_regs::default();
    entry.set_regs(&mut regs);
    vcpu.set_regs(&regs).map_err(failed("the general registers"))
}

/// Local vector table entries, as byte offsets into the local APIC's page.
const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
/// Intel SDM volume 3, §11.5.1: the mask, and a delivery mode at bits 8 to 10.
const MASKED: u32 = 1 << 16;
const NMI: u32 = 0b100 << 8;

/// NMI on LINT1, as on every PC. LINT0 stays masked: it is the PIC's, which comes with the I/O APIC
/// in KVM but which the guest is told it has not. It would not mask the PIC, and a GSI below 16
/// reaches both: each interrupt of the serial port would be a second one, with the PIC's vector.
fn route_local_interrupts(vcpu: &VcpuFd) -> Result<(), SetupError> {
    let mut lapic = vcpu.get_lapic().map_err(failed("the local APIC"))?;
    set_lapic_register(&mut lapic, LVT_LINT0, MASKED);
    set_lapic_register(&mut lapic, LVT_LINT1, NMI);
    vcpu.set_lapic(&lapic).map_err(failed("the local APIC"))
}

fn set_lapic_register(lapic: &mut kvm_lapic_state, offset: usize, value: u32) {
    // The page's bytes are C's signed `char`s.
    for (register, byte) in lapic.regs.iter_mut().skip(offset).zip(value.to_le_bytes()) {
        *register = byte.cast_signed();
    }
}
