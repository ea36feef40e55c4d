//! `/dev/kvm`: opened, and found fit to run a machine. Nothing of a guest is known here.

use kvm_ioctls::{Cap, Kvm, VmFd};
use nix::errno::Errno;

/// The only version there ever was (Documentation/virt/kvm/api.rst §4.1).
const API_VERSION: i32 = 12;

/// What a machine of ours can't do without, with the name that the kernel's documentation uses.
const NEEDED: [(Cap, &str); 7] = [
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// Why no machine can be made on this host.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// No device node.
    #[error(
        "there is no /dev/kvm on this host; virtualization must be switched on in the firmware \
         and the module kvm_intel or kvm_amd loaded"
    )]
    Missing,
    /// No permission.
    #[error("can't open /dev/kvm: permission denied; run as root or as a member of the group kvm")]
    NotPermitted,
    /// Any other failure.
    #[error("can't open /dev/kvm")]
    Open {
        /// Why.
        source: Errno,
    },
    /// Not the stable interface.
    #[error("/dev/kvm speaks version {found} of KVM's interface, and {API_VERSION} is needed")]
    Version {
        /// What it says.
        found: i32,
    },
    /// A feature of newer or otherwise configured kernels.
    #[error("this host's KVM lacks {name}, which is needed")]
    Lacks {
        /// The capability's name.
        name: &'static str,
    },
    /// More vCPUs than KVM runs in one VM.
    #[error("this host's KVM runs at most {most} vCPUs in one machine, and {asked} are asked for")]
    TooManyCpus {
        /// `--cpus`
        asked: u8,
        /// KVM's limit.
        most: usize,
    },
    /// The VM could not be created.
    #[error("can't create a virtual machine with /dev/kvm")]
    CreateVm {
        /// Why.
        source: Errno,
    },
}

/// Opens `/dev/kvm` and checks that it has what a machine with `cpus` vCPUs needs.
///
/// # Errors
/// [`KvmError`], each naming what is wrong.
pub fn open(cpus: u8) -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|error| match Errno::from_raw(error.errno()) {
        Errno::ENOENT | Errno::ENXIO | Errno::ENODEV => KvmError::Missing,
        Errno::EACCES | Errno::EPERM => KvmError::NotPermitted,
        source => KvmError::Open { source },
    })?;
    let found = kvm.get_api_version();
    if found != API_VERSION {
        return Err(KvmError::Version { found });
    }
    if let Some((_, name)) = NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        return Err(KvmError::Lacks { name });
    }
    let most = kvm.get_max_vcpus();
    if usize::from(cpus) > most {
        return Err(KvmError::TooManyCpus { asked: cpus, most });
    }
    Ok(kvm)
}

/// A new VM with nothing in it.
///
/// # Errors
/// [`KvmError::CreateVm`].
pub fn create_vm(kvm: &Kvm) -> Result<VmFd, KvmError> {
    loop {
        match kvm.create_vm() {
            Ok(vm) => return Ok(vm),
            // It takes long enough to be interrupted, by a timer's or child's signal.
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => {
                return Err(KvmError::CreateVm { source: Errno::from_raw(error.errno()) });
            }
        }
    }
}
