//! What a user asked for: the whole machine as plain values.
//!
//! Read from the command line and from a TOML file alike. Nothing here opens a file or a device;
//! whether what was asked for exists is found out by the part that uses it.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

mod file;
mod limits;
mod net;
mod options;
mod port;
mod settings;
mod size;

pub use net::{NetConfig, NetTo};
pub use options::{Section, nearest};
pub use port::PortConfig;
pub use settings::{MAX_CPUS, Settings};
pub use size::Size;

use options::{parsed, parsed_list, parsed_option, switch};

use crate::control_line::Limits;
use crate::vhost_user::Policy;

/// What is wrong with what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key that the section does not have.
    #[error("--{section}: there is no key `{key}`; {advice}")]
    UnknownKey {
        /// The option.
        section: &'static str,
        /// The key as written.
        key: String,
        /// The nearest right one, or all.
        advice: String,
    },
    /// One key twice.
    #[error("--{section}: `{key}` is given twice")]
    Repeated {
        /// The option.
        section: &'static str,
        /// The key.
        key: String,
    },
    /// A value that can't be read, or is missing.
    #[error("--{section}: {reason}")]
    Value {
        /// The option.
        section: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Two devices under one name.
    #[error("two devices are named `{0}`; give one of them another id=")]
    SameId(String),
    /// Too few or too many vCPUs.
    #[error("--cpus: {0} vCPUs can't be had; a machine has 1 to {MAX_CPUS}")]
    Cpus(u64),
    /// Two streams of bytes into one terminal.
    #[error("the terminal can be one console only: give stdio to one of --console and --serial")]
    TerminalTwice,
    /// No kernel.
    #[error("no kernel is given; name one with --kernel, an ELF vmlinux or a bzImage")]
    NoKernel,
    /// The configuration file can't be read.
    #[error("can't read the configuration file {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration file is not TOML.
    #[error("the configuration file {path} is not valid TOML: {reason}")]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A key at the top of the file that is no option.
    #[error("there is no option `{key}`; {advice}")]
    UnknownOption {
        /// The key as written.
        key: String,
        /// The nearest right one, or all.
        advice: String,
    },
    /// An error inside the file.
    #[error("{path}")]
    InFile {
        /// The file.
        path: PathBuf,
        /// The error.
        source: Box<ConfigError>,
    },
}

/// A machine: everything `atoll run` needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct VmConfig {
    /// ELF or bzImage.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// vCPUs, 1 to 64.
    pub cpus: u8,
    /// Guest memory.
    pub memory: MemoryConfig,
    /// The devices, in PCI slot order.
    pub devices: Vec<DeviceConfig>,
    /// Where the 16550's output goes.
    pub serial: SerialConfig,
    /// Where the control socket is served, unless a service manager passes one.
    pub control: Option<PathBuf>,
    /// How long to wait for a backend's socket at start; without it, for ever.
    pub connect_timeout: Option<Duration>,
    /// How long the guest has to power off after the first SIGTERM; without it, for ever.
    pub grace: Option<Duration>,
}

/// `--memory`
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct MemoryConfig {
    /// In bytes.
    pub size: Size,
    /// The size of huge pages to take it from, 2 MiB or 1 GiB.
    #[serde(default)]
    pub hugepages: Option<Size>,
    /// Whether every page is taken before the guest starts.
    #[serde(default, deserialize_with = "switch")]
    pub prefault: bool,
}

impl Section for MemoryConfig {
    const NAME: &'static str = "memory";
    const KEYS: &'static [&'static str] = &["size", "hugepages", "prefault"];
    const LEADING: Option<&'static str> = Some("size");
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { size: Size(512 << 20), hugepages: None, prefault: false }
    }
}

/// What a switch is that nobody turns off.
fn on() -> bool {
    true
}

/// One virtio device: its name in the guest's PCI order, and who serves it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceConfig {
    /// Unique in this machine.
    pub id: String,
    /// What becomes of the machine while nobody serves it.
    pub on_disconnect: Policy,
    /// Who serves it.
    pub backend: BackendConfig,
}

/// Who serves a device.
#[derive(Clone, Debug, PartialEq)]
pub enum BackendConfig {
    /// Our `atoll-blk`, as a child.
    Disk(DiskConfig),
    /// Our `atoll-net`, as a child.
    Net(NetConfig),
    /// Our `atoll-console`, as a child.
    Console(ConsoleConfig),
    /// Somebody else, behind a socket.
    Socket(SocketConfig),
}

/// `--disk`
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct DiskConfig {
    /// The image or block device.
    pub path: PathBuf,
    /// Whether the guest may only read.
    #[serde(default, deserialize_with = "switch")]
    pub readonly: bool,
    /// The image's format: `raw`, `qcow2` or `auto`.
    pub format: Option<String>,
    /// Whether what the guest writes is dropped at the end.
    #[serde(default, deserialize_with = "switch")]
    pub snapshot: bool,
    /// What may keep what the guest wrote: `none`, `writeback`, `writethrough` or `unsafe`.
    pub cache: Option<String>,
    /// What becomes of requests for which the host has no space: `report` or `pause`.
    #[serde(default, rename = "on-enospc")]
    pub on_enospc: Option<String>,
    /// What the guest reads as the disk's serial number.
    pub serial: Option<String>,
    /// Request queues; one for each vCPU unless given.
    #[serde(default, deserialize_with = "parsed_option")]
    pub queues: Option<u16>,
    /// Whether its process gives up what it does not need.
    #[serde(default = "on", deserialize_with = "switch")]
    pub sandbox: bool,
    /// What becomes of the machine while nobody serves it.
    #[serde(default, rename = "on-disconnect", deserialize_with = "parsed")]
    pub on_disconnect: Policy,
    /// The device's name.
    pub id: Option<String>,
    /// How fast it may be.
    #[serde(flatten, deserialize_with = "limits::limits")]
    pub limits: Limits,
}

impl Section for DiskConfig {
    const NAME: &'static str = "disk";
    const KEYS: &'static [&'static str] = &[
        "path",
        "readonly",
        "format",
        "snapshot",
        "cache",
        "on-enospc",
        "serial",
        "queues",
        "sandbox",
        "bps",
        "bps-burst",
        "iops",
        "iops-burst",
        "on-disconnect",
        "id",
    ];
}

/// `--console`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "ConsoleKeys")]
pub struct ConsoleConfig {
    /// Where its bytes go and come from.
    pub to: ConsoleTo,
    /// Its further ports, by name.
    pub ports: Vec<PortConfig>,
    /// Whether its process gives up what it does not need.
    pub sandbox: bool,
    /// What becomes of the machine while nobody serves it.
    pub on_disconnect: Policy,
    /// The device's name.
    pub id: Option<String>,
}

/// Where a console's bytes go and come from.
#[derive(Clone, Debug, PartialEq)]
pub enum ConsoleTo {
    /// This terminal.
    Stdio,
    /// A new pseudo-terminal, with a symbolic link to it where one is named.
    Pty(Option<PathBuf>),
    /// A file, output only.
    File(PathBuf),
    /// A Unix socket that others attach to.
    Socket(PathBuf),
}

/// [`ConsoleConfig`] before it is known which of the four it is.
#[derive(Deserialize)]
struct ConsoleKeys {
    #[serde(default, deserialize_with = "switch")]
    stdio: bool,
    pty: Option<PathBuf>,
    file: Option<PathBuf>,
    socket: Option<PathBuf>,
    #[serde(default, deserialize_with = "parsed_list")]
    port: Vec<PortConfig>,
    #[serde(default = "on", deserialize_with = "switch")]
    sandbox: bool,
    #[serde(default, rename = "on-disconnect", deserialize_with = "parsed")]
    on_disconnect: Policy,
    id: Option<String>,
}

impl TryFrom<ConsoleKeys> for ConsoleConfig {
    type Error = &'static str;

    fn try_from(keys: ConsoleKeys) -> Result<Self, Self::Error> {
        let to = match (keys.stdio, keys.pty, keys.file, keys.socket) {
            (true, None, None, None) => ConsoleTo::Stdio,
            (false, Some(link), None, None) => {
                ConsoleTo::Pty(Some(link).filter(|link| link.as_os_str() != "on"))
            }
            (false, None, Some(path), None) => ConsoleTo::File(path),
            (false, None, None, Some(path)) => ConsoleTo::Socket(path),
            _ => return Err("it takes exactly one of stdio, pty, pty=LINK, file=F and socket=S"),
        };
        let ConsoleKeys { port: ports, sandbox, on_disconnect, id, .. } = keys;
        Ok(Self { to, ports, sandbox, on_disconnect, id })
    }
}

impl Section for ConsoleConfig {
    const NAME: &'static str = "console";
    const KEYS: &'static [&'static str] =
        &["stdio", "pty", "file", "socket", "port", "sandbox", "on-disconnect", "id"];
    const REPEATABLE: &'static [&'static str] = &["port"];
}

/// `--device`
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SocketConfig {
    /// The virtio device type by name, such as `blk`.
    pub r#type: String,
    /// Where the backend listens.
    pub socket: PathBuf,
    /// How many queues to use; as many as the backend has unless given.
    #[serde(default, deserialize_with = "parsed_option")]
    pub queues: Option<u16>,
    /// Entries of each queue, a power of two.
    #[serde(default, rename = "queue-size", deserialize_with = "parsed_option")]
    pub queue_size: Option<u16>,
    /// Where the backend answers questions about itself, if it does.
    pub control: Option<PathBuf>,
    /// What becomes of the machine while nobody serves it.
    #[serde(default, rename = "on-disconnect", deserialize_with = "parsed")]
    pub on_disconnect: Policy,
    /// The device's name.
    pub id: Option<String>,
}

impl Section for SocketConfig {
    const NAME: &'static str = "device";
    const KEYS: &'static [&'static str] =
        &["type", "socket", "queues", "queue-size", "control", "on-disconnect", "id"];
    const LEADING: Option<&'static str> = Some("type");
}

/// `--serial`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "SerialKeys")]
pub enum SerialConfig {
    /// This terminal.
    Stdio,
    /// A file, output only.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// [`SerialConfig`] before it is known which of the three it is.
#[derive(Deserialize)]
struct SerialKeys {
    #[serde(default, deserialize_with = "switch")]
    stdio: bool,
    #[serde(default, deserialize_with = "switch")]
    off: bool,
    file: Option<PathBuf>,
}

impl TryFrom<SerialKeys> for SerialConfig {
    type Error = &'static str;

    fn try_from(keys: SerialKeys) -> Result<Self, Self::Error> {
        match (keys.stdio, keys.file, keys.off) {
            (true, None, false) => Ok(Self::Stdio),
            (false, Some(path), false) => Ok(Self::File(path)),
            (false, None, true) => Ok(Self::Off),
            _ => Err("it takes exactly one of stdio, file=F and off"),
        }
    }
}

impl Section for SerialConfig {
    const NAME: &'static str = "serial";
    const KEYS: &'static [&'static str] = &["stdio", "file", "off"];
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
