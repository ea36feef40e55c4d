//! x86-64: the address map, the interrupt controllers and the state in which a vCPU starts.

mod cpuid;
mod entry;
pub mod layout;
mod msr;
mod reset_vector;
mod setup;

pub use cpuid::{Cpuid, CpuidError};
pub use entry::{EntryPoint, Protocol, write_boot_tables};
pub use setup::{SetupError, prepare_vcpu, prepare_vm};
