//! The control socket: what `docs/api.md` describes, for one [`Machine`].
//!
//! One thread, `control`, serves all clients and never waits for one, nor for the machine: what may
//! take long is done on a thread of its own. What the machine makes of it is not known here.

mod api;
mod events;
mod server;
mod socket;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::control_line::Limits;
use crate::vhost_user::DeviceStatus;

pub use events::EventLog;
pub use server::{Server, ServerError};
pub use socket::{Socket, SocketError};

/// What a machine is and how it is.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// Of `atoll`.
    pub version: &'static str,
    /// Of the process.
    pub pid: u32,
    /// How the machine is.
    pub state: MachineState,
    /// Who holds it paused.
    pub paused_by: Vec<String>,
    /// vCPUs.
    pub cpus: u8,
    /// Guest memory.
    pub memory_bytes: u64,
    /// The kernel's file.
    pub kernel: PathBuf,
    /// How often the guest was started.
    pub boots: u64,
    /// Since the process began.
    pub uptime_ms: u64,
    /// How many devices there are.
    pub devices: usize,
    /// The consoles that it has started, and their ports.
    pub consoles: Vec<ConsoleInfo>,
}

/// Where a console, or a port of one, is to be found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleInfo {
    /// The device.
    pub id: String,
    /// The port's name, if it is not the console itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// What it leads to.
    pub to: ConsoleKind,
    /// Where that is, if it has a name that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// What a console leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleKind {
    /// The terminal of whoever started the machine.
    Stdio,
    /// A pseudo-terminal.
    Pty,
    /// A Unix socket.
    Socket,
    /// A file.
    File,
}

/// How a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    /// Its devices' backends are waited for.
    Starting,
    /// Its vCPUs run.
    Running,
    /// Its vCPUs are held.
    Paused,
    /// It is over.
    Ended,
}

/// What can be asked of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say how the machine is, with what only its devices' processes know.
    Info,
    /// Stop all vCPUs.
    Pause,
    /// Let them go on.
    Resume,
    /// Press the power button.
    PowerButton,
    /// Move a device to the backend on `socket`.
    Swap {
        /// The device.
        id: String,
        /// Where its new backend listens.
        socket: PathBuf,
    },
    /// Drop a device's connection, and look for its backend at once.
    Reattach {
        /// The device.
        id: String,
    },
    /// Say how fast a device may be.
    Limits {
        /// The device.
        id: String,
    },
    /// Change how fast a device may be.
    Limit {
        /// The device.
        id: String,
        /// Some of its limits.
        change: Limits,
    },
    /// Make a disk longer, or find out that it is.
    Resize {
        /// The device.
        id: String,
        /// Its new length in bytes; that of its image unless given.
        size: Option<u64>,
    },
    /// Plug in a network card's cable, or pull it.
    Link {
        /// The device.
        id: String,
        /// Whether it is plugged in from now on.
        up: bool,
    },
    /// Say what was counted.
    Metrics,
}

/// What comes of an action.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It is done, and this is how it is now.
    Now(Value),
    /// What was counted, as Prometheus reads it.
    Metrics(String),
}

/// Why a machine did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such device.
    #[error("there is no device `{id}`; {advice}")]
    NoDevice {
        /// As asked for.
        id: String,
        /// Which devices there are.
        advice: String,
    },
    /// It is asked wrongly, and why.
    #[error("{0}")]
    Wrong(String),
    /// It can't be done now, and why.
    #[error("{0}")]
    Conflict(String),
}

impl Refusal {
    /// `id` is none of the devices `ids`.
    pub fn no_device<'a>(id: &str, ids: impl Iterator<Item = &'a str>) -> Self {
        let ids = ids.collect::<Vec<_>>().join(", ");
        let advice = match ids.as_str() {
            "" => "the machine has no devices yet".to_owned(),
            ids => format!("the machine has {ids}"),
        };
        Self::NoDevice { id: id.to_owned(), advice }
    }
}

/// What a control socket acts on.
///
/// `act` may take long and is called on a thread of its own; the others answer at once.
pub trait Machine: Send + Sync {
    /// How it is, as far as that is known here.
    fn info(&self) -> Info;
    /// Whether its devices' processes know more than that, so that [`Action::Info`] is to be asked.
    fn is_known_elsewhere(&self) -> bool;
    /// How its devices are.
    fn devices(&self) -> Vec<DeviceStatus>;
    /// Does what is asked.
    ///
    /// # Errors
    /// [`Refusal`], when nothing was done.
    fn act(&self, action: Action) -> Result<Outcome, Refusal>;
}
