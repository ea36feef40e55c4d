//! How a guest ends, and the one place where that is reported.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

/// The guest's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It powered itself off (ACPI S5).
    PowerOff,
    /// It reset itself.
    Reset,
    /// It can't go on.
    Crash(Crash),
}

/// A vCPU can't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest crashed: vCPU {vcpu}{} {reason}", At(*.rip))]
pub struct Crash {
    /// Which one.
    pub vcpu: u8,
    /// Its instruction pointer, if KVM could still tell.
    pub rip: Option<u64>,
    /// Why.
    pub reason: CpuStop,
}

struct At(Option<u64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |rip| write!(f, " at RIP {rip:#x}"))
    }
}

/// Why a vCPU can't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuStop {
    /// An exception while delivering the exception of an exception.
    #[error("had a triple fault (KVM_EXIT_SHUTDOWN)")]
    TripleFault,
    /// KVM gives up; `data` begins with what the kind says of it.
    #[error(
        "ran into something that this host's KVM can't do (KVM_EXIT_INTERNAL_ERROR, {}, hexadecimal data {data:x?})",
        suberror_name(*.suberror)
    )]
    InternalError {
        /// The kind, `KVM_INTERNAL_ERROR_…`.
        suberror: u32,
        /// More of it.
        data: Vec<u64>,
    },
    /// The processor refuses the guest's state.
    #[error(
        "could not be entered (KVM_EXIT_FAIL_ENTRY, hardware reason {reason:#x} on host CPU {cpu})"
    )]
    FailEntry {
        /// The hardware's code.
        reason: u64,
        /// Which processor.
        cpu: u32,
    },
    /// Memory that should be there is not.
    #[error("could not reach its memory at {address:#x} (KVM_EXIT_MEMORY_FAULT)")]
    MemoryFault {
        /// Guest-physical.
        address: u64,
    },
    /// An exit that no machine of ours has a cause for.
    #[error("left the guest for a reason that is unknown here ({0})")]
    Unexpected(String),
    /// The system call failed.
    #[error("could not be run by KVM: {0}")]
    Run(Errno),
}

fn suberror_name(suberror: u32) -> &'static str {
    match suberror {
        kvm_bindings::KVM_INTERNAL_ERROR_EMULATION => "instruction emulation",
        kvm_bindings::KVM_INTERNAL_ERROR_SIMUL_EX => "simultaneous exceptions",
        kvm_bindings::KVM_INTERNAL_ERROR_DELIVERY_EV => "delivery of an event",
        kvm_bindings::KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => "unexpected exit reason",
        _ => "unknown kind",
    }
}

/// Where vCPUs and devices report the guest's end. Only the first report counts: what a guest does
/// after it has powered off is nobody's concern.
#[derive(Clone)]
pub struct Exits(Arc<Inner>);

struct Inner {
    reported: AtomicBool,
    sink: Box<dyn Fn(Exit) + Send + Sync>,
}

impl Exits {
    /// Has `sink` called once, on the thread that noticed.
    pub fn new(sink: impl Fn(Exit) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { reported: AtomicBool::new(false), sink: Box::new(sink) }))
    }

    /// The guest has ended.
    pub fn report(&self, exit: Exit) {
        if !self.0.reported.swap(true, Ordering::SeqCst) {
            (self.0.sink)(exit);
        }
    }

    /// Whether it has.
    pub fn reported(&self) -> bool {
        self.0.reported.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
#[path = "exit_test.rs"]
mod tests;
