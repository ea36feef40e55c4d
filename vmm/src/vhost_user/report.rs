//! What a device tells of itself: to the rest of the VMM while it runs, and to who asks.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// What a device needs of the machine it is part of. Called on the device's thread, so no method
/// waits for a device.
pub trait Vmm: Send + Sync {
    /// Stops the vCPUs until `id` has them go on; other devices may have stopped them as well.
    fn pause(&self, id: &str);
    /// Takes back what [`Vmm::pause`] did.
    fn resume(&self, id: &str);
    /// Ends the machine, for the reason `why`.
    fn stop(&self, id: &str, why: &str);
    /// Something happened to a device.
    fn event(&self, event: DeviceEvent);
}

/// What happened to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A back-end is at the other end of a connection.
    Connected,
    /// It was agreed what the guest is offered.
    Negotiated,
    /// The back-end works on the guest's rings.
    Active,
    /// The back-end has gone, or was given up.
    Lost,
    /// A back-end has taken over where the lost one was.
    Recovered,
    /// The next of what to do about a lost back-end applies.
    Policy,
    /// The guest was told that the device needs a reset.
    NeedsReset,
    /// Another back-end has taken over.
    Swapped,
    /// Another back-end was to take over, but could not.
    SwapFailed,
    /// Configuration space changed.
    ConfigChanged,
    /// A back-end was refused.
    Refused,
    /// The device has ended.
    Closed,
}

/// Where a device is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// No back-end yet.
    Connecting,
    /// A back-end is there and idle.
    Negotiated,
    /// The back-end works on the guest's rings.
    Active,
    /// The back-end has gone.
    Lost,
    /// The VMM ends.
    Closed,
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Negotiated => "negotiated",
            Self::Active => "active",
            Self::Lost => "lost",
            Self::Closed => "closed",
        })
    }
}

/// Who is, or was, at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PeerIdentity {
    /// How the device calls it: a socket, or its own process.
    pub name: String,
    /// The process, where the kernel or who started it knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Its socket, if it has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// How it ended, where it is ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<String>,
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match (&self.command, self.pid) {
            (Some(command), Some(pid)) => write!(f, " ({command}, pid {pid})"),
            (None, Some(pid)) => write!(f, " (pid {pid})"),
            (_, None) => Ok(()),
        }
    }
}

/// Something that happened to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceEvent {
    /// The user's name of the device.
    pub device: String,
    /// Its type.
    pub r#type: &'static str,
    /// What happened.
    pub kind: EventKind,
    /// Where the device was.
    pub from: DeviceState,
    /// Where it is now.
    pub to: DeviceState,
    /// One sentence for a person.
    pub text: String,
    /// Who it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerIdentity>,
}

/// How a device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceStatus {
    /// The user's name of the device.
    pub id: String,
    /// Its type.
    pub r#type: &'static str,
    /// Where it is in its life.
    pub state: DeviceState,
    /// Its back-end, or the last one it had.
    pub peer: PeerIdentity,
    /// What happens when the back-end goes.
    pub policy: String,
    /// Features that the driver accepted, by name; none before it did.
    pub features: Vec<String>,
    /// Protocol features agreed on with the back-end, by name.
    pub protocol_features: Vec<String>,
    /// Whether requests in flight outlive the back-end by its own record of them.
    pub inflight: bool,
    /// How long there has been no back-end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_for_ms: Option<u64>,
    /// How many times a back-end has taken over from a lost one.
    pub recoveries: u64,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The started queues.
    pub queues: Vec<QueueStatus>,
}

/// How one started queue is, by the indices in guest memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueStatus {
    /// Which queue.
    pub index: u16,
    /// Its entries.
    pub size: u16,
    /// How many buffers the driver has ever made available, modulo 65536.
    pub avail_idx: u16,
    /// How many the device has ever used, modulo 65536.
    pub used_idx: u16,
    /// How many the device has now.
    pub depth: u16,
    /// How long the oldest of them has been seen there, at least.
    pub oldest_ms: u64,
    /// Whose turn it is.
    pub owes: Owes,
}

/// Who has to do the next step for a queue to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owes {
    /// Nothing is left to do.
    Nobody,
    /// The guest: it has not taken what was used, or gives no buffers.
    Guest,
    /// The back-end: it has not used what was made available.
    Backend,
    /// An interrupt that was raised and has not reached the guest.
    Interrupt,
}
