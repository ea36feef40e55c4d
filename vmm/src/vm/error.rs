//! Everything that can keep a machine from running, by the part that says so.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::acpi::AcpiError;
use crate::arch::kvm::KvmError;
use crate::arch::{CpuidError, SetupError};
use crate::boot::BootError;
use crate::bus::Overlap;
use crate::child::ChildError;
use crate::control::{ServerError, SocketError};
use crate::memory::MemoryError;
use crate::pci::PciError;
use crate::vcpu::{Crash, VcpuError};
use crate::vhost_user::VhostUserError;
use crate::virtio::VirtioError;

/// Why a machine did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A part's own error, which says it all.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// See [`CpuidError`].
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// See [`MemoryError`].
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// See [`BootError`].
    #[error(transparent)]
    Boot(#[from] BootError),
    /// See [`AcpiError`].
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// See [`SetupError`].
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// See [`VcpuError`].
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// See [`VirtioError`].
    #[error(transparent)]
    Virtio(#[from] VirtioError),
    /// See [`PciError`].
    #[error(transparent)]
    Pci(#[from] PciError),
    /// See [`VhostUserError`].
    #[error(transparent)]
    VhostUser(#[from] VhostUserError),
    /// See [`Overlap`].
    #[error(transparent)]
    Bus(#[from] Overlap),
    /// See [`Crash`].
    #[error(transparent)]
    Crash(#[from] Crash),
    /// A backend of ours could not be started.
    #[error("device {id}")]
    Child {
        /// The device.
        id: String,
        /// Why.
        source: ChildError,
    },
    /// A backend of ours ended before the device was ready.
    #[error("device {id}: {program} ended while it was being set up ({status}); see its message")]
    ChildEnded {
        /// The device.
        id: String,
        /// The program.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
    },
    /// A device without its backend ends the machine, as its policy says.
    #[error("{0}")]
    DeviceStop(String),
    /// See [`SocketError`].
    #[error(transparent)]
    ControlSocket(#[from] SocketError),
    /// See [`ServerError`].
    #[error(transparent)]
    Control(#[from] ServerError),
    /// There is no such device type.
    #[error("--device: there is no device type `{name}`; {advice}")]
    UnknownType {
        /// The type as written.
        name: String,
        /// The nearest right one, or all.
        advice: String,
    },
    /// The file for the serial port's output.
    #[error("can't open {path} for the serial port's output")]
    SerialFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An interrupt line could not be connected.
    #[error("can't connect the {line} interrupt")]
    Line {
        /// Whose.
        line: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A thread or signal of the VMM's own.
    #[error("can't {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl VmError {
    /// Whether the user asked for something that can't be, rather than something having failed.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::UnknownType { .. }
                | Self::ControlSocket(SocketError::Path(
                    atoll_unix_socket::SocketError::TooLong { .. }
                ))
                | Self::Memory(MemoryError::TooSmall { .. } | MemoryError::NotWholePages { .. })
        )
    }
}

/// One sentence, from what was being done to what went wrong.
pub fn sentence(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
