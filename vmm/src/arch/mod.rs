//! What differs between processor architectures; everything else of the VMM is written without.
//!
//! One folder for each architecture, and the same names in each. Code outside this folder uses
//! only what is re-exported here.

pub mod kvm;

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64::{
    Cpuid, CpuidError, EntryPoint, Protocol, SetupError, layout, prepare_vcpu, prepare_vm,
    write_boot_tables,
};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("atoll runs on x86-64 only, so far");
