//! The model-specific registers that don't start as KVM has them.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use nix::errno::Errno;

use super::SetupError;

const IA32_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
const MTRR_DEF_TYPE: u32 = 0x2ff;
/// Intel SDM volume 3, §12.11.2.1: MTRRs enabled, and memory they don't describe is write-back.
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;

/// The registers and their values.
const AT_RESET: [(u32, u64); 2] =
    [(IA32_MISC_ENABLE, FAST_STRINGS), (MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK)];

/// Sets what firmware would have set.
pub(super) fn set(vcpu: &VcpuFd) -> Result<(), SetupError> {
    let entries = AT_RESET.map(|(index, data)| kvm_msr_entry { index, data, ..Default::default() });
    let failed = |source| SetupError { what: "the model-specific registers", source };
    let msrs = Msrs::from_entries(&entries).map_err(|_too_many| failed(Errno::E2BIG))?;
    let set = vcpu.set_msrs(&msrs).map_err(|error| failed(Errno::from_raw(error.errno())))?;
    if let Some((index, _)) = AT_RESET.get(set) {
        // KVM stops at the first that it does not have. A guest boots without; it only says so.
        tracing::debug!("KVM has no model-specific register {index:#x}");
    }
    Ok(())
}
