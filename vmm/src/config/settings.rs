//! What one place (the command line, a file) says of a machine, and how two places make one.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    BackendConfig, ConfigError, ConsoleConfig, ConsoleTo, DeviceConfig, DiskConfig, MemoryConfig,
    NetConfig, Section, SerialConfig, SocketConfig, VmConfig,
};

/// The most vCPUs a machine may have.
pub const MAX_CPUS: u8 = 64;

/// What `--console` may leave to us: the early console on the 16550, then the virtio console.
const DEFAULT_CMDLINE: &str = "console=ttyS0 console=hvc0";

/// Options as given in one place; all may be absent.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct Settings {
    /// The kernel: an ELF vmlinux with a PVH note, or a bzImage
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line [default: console=ttyS0 console=hvc0]
    #[arg(long, value_name = "STRING")]
    pub cmdline: Option<String>,
    /// vCPUs, 1 to 64 [default: 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<u64>,
    /// Guest memory: SIZE[,hugepages=2M|1G][,prefault=on] [default: 512M]
    #[arg(long, value_name = "SIZE[,…]", value_parser = MemoryConfig::from_text)]
    pub memory: Option<MemoryConfig>,
    /// A disk, served by an atoll-blk of its own:
    /// path=FILE[,format=raw|qcow2|auto][,readonly=on][,snapshot=on][,cache=MODE][,on-enospc=report|pause][,serial=S][,queues=N][,sandbox=off][,bps=N][,bps-burst=N][,iops=N][,iops-burst=N][,id=NAME]
    #[arg(long, value_name = "path=FILE[,…]", value_parser = DiskConfig::from_text)]
    pub disk: Vec<DiskConfig>,
    /// A network card, served by an atoll-net of its own:
    /// tap=NAME|bridge=NAME|macvtap=NAME|stream=PATH[,server=on]|dgram=PATH,remote=PATH|user[,hostfwd=tcp:PORT:PORT[+…]]
    /// [,mac=M][,mtu=N][,queue-pairs=N][,sandbox=off]
    /// [,rx-bps=N][,rx-pps=N][,tx-bps=N][,tx-pps=N][,…-burst=N][,id=NAME]
    #[arg(long, value_name = "tap=NAME|user[,…]", value_parser = NetConfig::from_text)]
    pub net: Vec<NetConfig>,
    /// A console, served by an atoll-console of its own:
    /// stdio|pty[=LINK]|file=FILE|socket=PATH[,port=NAME:socket=PATH|pty[=LINK]|file=FILE]…[,sandbox=off][,id=NAME]
    #[arg(long, value_name = "stdio|pty|…", value_parser = ConsoleConfig::from_text)]
    pub console: Vec<ConsoleConfig>,
    /// A device whose vhost-user backend listens on a socket:
    /// TYPE,socket=PATH[,queues=N][,queue-size=N][,control=PATH][,id=NAME]
    #[arg(long, value_name = "TYPE,socket=PATH[,…]", value_parser = SocketConfig::from_text)]
    pub device: Vec<SocketConfig>,
    /// The 16550 serial port: stdio|file=FILE|off [default: off, or stdio if there is no --console]
    #[arg(long, value_name = "stdio|file=FILE|off", value_parser = SerialConfig::from_text)]
    pub serial: Option<SerialConfig>,
    /// Serve the control socket here, for `atoll ctl` (see docs/api.md)
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// How long to wait for the backends of --device [default: for ever]
    #[arg(long, value_name = "SECONDS")]
    pub connect_timeout: Option<u64>,
    /// How long the guest may take to power off after SIGTERM [default: until a second SIGTERM]
    #[arg(long, value_name = "SECONDS")]
    pub grace: Option<u64>,
}

impl Settings {
    /// These settings where they say something, `file`'s where they don't; devices of both.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        fn joined<T>(mut first: Vec<T>, second: Vec<T>) -> Vec<T> {
            first.extend(second);
            first
        }
        Self {
            kernel: self.kernel.or(file.kernel),
            initrd: self.initrd.or(file.initrd),
            cmdline: self.cmdline.or(file.cmdline),
            cpus: self.cpus.or(file.cpus),
            memory: self.memory.or(file.memory),
            disk: joined(file.disk, self.disk),
            net: joined(file.net, self.net),
            console: joined(file.console, self.console),
            device: joined(file.device, self.device),
            serial: self.serial.or(file.serial),
            control: self.control.or(file.control),
            connect_timeout: self.connect_timeout.or(file.connect_timeout),
            grace: self.grace.or(file.grace),
        }
    }

    /// The machine that these settings describe, with the defaults filled in.
    ///
    /// # Errors
    /// [`ConfigError`] when they contradict each other, or no machine can be so.
    pub fn into_vm(self) -> Result<VmConfig, ConfigError> {
        let asked = self.cpus.unwrap_or(1);
        let cpus = u8::try_from(asked)
            .ok()
            .filter(|cpus| (1..=MAX_CPUS).contains(cpus))
            .ok_or(ConfigError::Cpus(asked))?;
        let serial = self.serial.unwrap_or(match self.console.is_empty() {
            true => SerialConfig::Stdio,
            false => SerialConfig::Off,
        });
        let on_terminal = self.console.iter().filter(|console| console.to == ConsoleTo::Stdio);
        if on_terminal.count() + usize::from(serial == SerialConfig::Stdio) > 1 {
            return Err(ConfigError::TerminalTwice);
        }
        Ok(VmConfig {
            kernel: self.kernel.ok_or(ConfigError::NoKernel)?,
            initrd: self.initrd,
            cmdline: self.cmdline.unwrap_or_else(|| DEFAULT_CMDLINE.to_owned()),
            cpus,
            memory: self.memory.unwrap_or_default(),
            devices: named(self.disk, self.net, self.console, self.device)?,
            serial,
            control: self.control,
            connect_timeout: self.connect_timeout.map(Duration::from_secs),
            grace: self.grace.map(Duration::from_secs),
        })
    }
}

/// All devices in PCI order, each with the name it was given or its kind and number.
fn named(
    disks: Vec<DiskConfig>,
    nets: Vec<NetConfig>,
    consoles: Vec<ConsoleConfig>,
    sockets: Vec<SocketConfig>,
) -> Result<Vec<DeviceConfig>, ConfigError> {
    let mut devices = Vec::new();
    let mut add = |id: Option<String>, on_disconnect, kind: &str, number: usize, backend| {
        let id = id.unwrap_or_else(|| format!("{kind}{number}"));
        devices.push(DeviceConfig { id, on_disconnect, backend });
    };
    for (number, mut disk) in disks.into_iter().enumerate() {
        let policy = disk.on_disconnect.clone();
        add(disk.id.take(), policy, "disk", number, BackendConfig::Disk(disk));
    }
    for (number, mut net) in nets.into_iter().enumerate() {
        let policy = net.on_disconnect.clone();
        add(net.id.take(), policy, "net", number, BackendConfig::Net(net));
    }
    for (number, mut console) in consoles.into_iter().enumerate() {
        let policy = console.on_disconnect.clone();
        add(console.id.take(), policy, "console", number, BackendConfig::Console(console));
    }
    for (number, mut socket) in sockets.into_iter().enumerate() {
        let policy = socket.on_disconnect.clone();
        add(socket.id.take(), policy, "device", number, BackendConfig::Socket(socket));
    }
    let mut seen = HashSet::new();
    match devices.iter().find(|device| !seen.insert(&device.id)) {
        Some(device) => Err(ConfigError::SameId(device.id.clone())),
        None => Ok(devices),
    }
}
