//! CPUID: what KVM supports, with the topology of our machine filled in.
//!
//! One package of cores with one thread each; a core's APIC id is its number.

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::{Cap, Kvm};
use nix::errno::Errno;

/// Why there is no CPUID for a guest.
#[derive(Debug, thiserror::Error)]
pub enum CpuidError {
    /// KVM does not tell.
    #[error("can't read from /dev/kvm which processor features it supports")]
    Read {
        /// Why.
        source: Errno,
    },
    /// More leaves than KVM takes.
    #[error("this host's processor has more CPUID leaves than KVM takes")]
    TooMany,
}

/// Of leaf 1, ECX.
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// Of leaf 1, EDX: more than one logical processor in the package.
const HTT: u32 = 1 << 28;
/// Of leaf 0x8000_0001, ECX, AMD only: the logical processors are cores, not threads.
const CMP_LEGACY: u32 = 1 << 1;

/// "AuthenticAMD" and "HygonGenuine" by their first four letters, in EBX of leaf 0.
const AMD: [u32; 2] = [u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"Hygo")];

/// What all vCPUs of a machine have in common.
#[derive(Clone, Debug)]
pub struct Cpuid {
    leaves: Vec<kvm_cpuid_entry2>,
    cpus: u32,
}

impl Cpuid {
    /// What this host's KVM supports, for a machine with `cpus` vCPUs.
    ///
    /// # Errors
    /// [`CpuidError::Read`]
    pub fn supported(kvm: &Kvm, cpus: u8) -> Result<Self, CpuidError> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|error| CpuidError::Read { source: Errno::from_raw(error.errno()) })?;
        let deadline_timer = kvm.check_extension(Cap::TscDeadlineTimer);
        Ok(Self::from_leaves(supported.as_slice().to_vec(), cpus, deadline_timer))
    }

    fn from_leaves(mut leaves: Vec<kvm_cpuid_entry2>, cpus: u8, deadline_timer: bool) -> Self {
        // Of the two topology leaves one will do, and it is written anew.
        leaves.retain(|leaf| leaf.function != 0xb && leaf.function != 0x1f);
        let highest = leaves.iter().find(|leaf| leaf.function == 0).map_or(0, |leaf| leaf.eax);
        if highest >= 0xb {
            leaves.extend((0..3).map(|index| kvm_cpuid_entry2 {
                function: 0xb,
                index,
                flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                ..Default::default()
            }));
        }
        let mut cpuid = Self { leaves, cpus: u32::from(cpus).max(1) };
        for leaf in cpuid.leaves.iter_mut().filter(|leaf| leaf.function == 1) {
            leaf.ecx |= HYPERVISOR;
            if deadline_timer {
                // KVM leaves it out, as it depends on the in-kernel irqchip, which we always use.
                // Without it a guest calibrates its timer for 120 ms.
                leaf.ecx |= TSC_DEADLINE;
            }
        }
        cpuid.describe_package();
        cpuid
    }

    /// CPUID of vCPU `index`.
    ///
    /// # Errors
    /// [`CpuidError::TooMany`]
    pub fn of_vcpu(&self, index: u8) -> Result<CpuId, CpuidError> {
        let mut leaves = self.leaves.clone();
        let apic_id = u32::from(index);
        for leaf in &mut leaves {
            match leaf.function {
                0x1 => leaf.ebx = leaf.ebx & 0x00ff_ffff | apic_id << 24,
                0xb => leaf.edx = apic_id,
                // AMD APM volume 3, E.4.17: extended APIC id, then core id and threads a core.
                0x8000_001e => (leaf.eax, leaf.ebx, leaf.ecx) = (apic_id, apic_id, 0),
                _ => {}
            }
        }
        CpuId::from_entries(&leaves).map_err(|_too_many| CpuidError::TooMany)
    }

    /// How many bits a guest-physical address has.
    pub fn address_bits(&self) -> u8 {
        let leaf = self.leaves.iter().find(|leaf| leaf.function == 0x8000_0008);
        // 36 bits is what a processor has that does not say (Intel SDM volume 3, §4.1.4).
        leaf.map_or(36, |leaf| leaf.eax.to_le_bytes()[0])
    }

    fn is_amd(&self) -> bool {
        self.leaves.iter().any(|leaf| leaf.function == 0 && AMD.contains(&leaf.ebx))
    }

    /// Fills in what says how many cores there are and what they share.
    fn describe_package(&mut self) {
        let amd = self.is_amd();
        let cpus = self.cpus;
        let ids = cpus.next_power_of_two();
        let id_bits = ids.trailing_zeros();
        for leaf in &mut self.leaves {
            match (leaf.function, leaf.index) {
                // Intel SDM volume 2, CPUID: the number of APIC ids in the package.
                (0x1, _) => {
                    leaf.ebx = leaf.ebx & 0xff00_ffff | ids << 16;
                    leaf.edx = if cpus > 1 { leaf.edx | HTT } else { leaf.edx & !HTT };
                }
                // Caches: ids that share one less one, and on Intel core ids less one.
                (0x4, _) | (0x8000_001d, _) if leaf.eax & 0x1f != 0 => {
                    let level = leaf.eax >> 5 & 0x7;
                    let sharing = if level >= 3 { ids - 1 } else { 0 };
                    leaf.eax = leaf.eax & 0x0000_3fff | sharing << 14;
                    if leaf.function == 0x4 {
                        leaf.eax |= (ids - 1) << 26;
                    }
                }
                // Extended topology: one thread a core, then all cores, then the end.
                (0xb, 0) => (leaf.eax, leaf.ebx, leaf.ecx) = (0, 1, 1 << 8),
                (0xb, 1) => (leaf.eax, leaf.ebx, leaf.ecx) = (id_bits, cpus, 2 << 8 | 1),
                (0xb, index) => (leaf.eax, leaf.ebx, leaf.ecx) = (0, 0, index),
                (0x8000_0001, _) if amd && cpus > 1 => leaf.ecx |= CMP_LEGACY,
                // AMD APM volume 3, E.4.7: cores less one, and the bits that number them.
                (0x8000_0008, _) if amd => leaf.ecx = id_bits << 12 | (cpus - 1),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "cpuid_test.rs"]
mod tests;
