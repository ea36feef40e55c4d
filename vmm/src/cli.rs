//! The command line of `atoll`. What the options mean is `config`'s business.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigError, Settings, Size, VmConfig};
use crate::control_line::Limits;

const EXAMPLES: &str = "\
Examples:
  A guest with three devices, each a process that atoll starts:
    atoll run --kernel vmlinux --cmdline 'root=/dev/vda console=hvc0' \\
              --disk path=root.img --net tap=tap0 --console stdio

  The same with a network that takes no privilege, and the guest's ssh on the host's port 2222:
    atoll run --kernel vmlinux --cmdline 'root=/dev/vda console=hvc0' \\
              --disk path=root.img --net user,hostfwd=tcp:2222:22 --console stdio

  The same disk, served by somebody else:
    atoll-blk --socket-path=/run/vm/blk.sock --blk-file=root.img &
    atoll run --kernel vmlinux --device blk,socket=/run/vm/blk.sock --console stdio

  A console on a socket, and a port for the QEMU guest agent in the guest:
    atoll run --kernel vmlinux --disk path=root.img \\
              --console socket=tty.sock,port=org.qemu.guest_agent.0:socket=agent.sock

  A machine from a file, with more memory:
    atoll run --config vm.toml --memory 4G,hugepages=2M

Signals: SIGTERM and SIGINT press the guest's power button; a second one, or --grace seconds,
stops the machine at once.

Exit codes: 0 the guest powered off or was stopped by a signal, 1 the machine failed, 2 it was
asked for wrongly.";

const CTL_EXAMPLES: &str = "\
Examples:
  atoll run --config vm.toml --control /run/vm/control &
  export ATOLL_CONTROL=/run/vm/control
  atoll ctl info
  atoll ctl device list
  atoll ctl device swap disk0 socket=/run/vm/new-blk.sock
  atoll ctl device limit disk0 --bps 100M --iops 2000
  atoll ctl device resize disk0 20G
  atoll ctl device link net0 down
  atoll ctl metrics
  atoll ctl events --json | jq 'select(.kind == \"lost\")'

What it speaks over the socket is HTTP with JSON: see docs/api.md.";

const CONSOLE_EXAMPLES: &str = "\
Examples:
  atoll run --config vm.toml --console socket=/run/vm/tty --control /run/vm/control &
  atoll console /run/vm/control
  atoll console web                          # systemd's atoll@web
  atoll console --attach /run/vm/tty         # the console itself, whosever it is
  atoll console /run/vm/control --port log </dev/null >log

Keys: Ctrl-] q leaves, Ctrl-] b sends a break (Ctrl-O, Linux's SysRq on a virtio console),
Ctrl-] Ctrl-] types Ctrl-] itself. All others are the guest's, Ctrl-C too.

What nobody has read yet is shown first. The guest's terminal becomes as large as this one, and
follows it. Where several are attached all see the console, and the first types.

Exit codes: 0 you left, or the guest ended; 1 failure; 2 wrong command line.";

/// A KVM virtual machine monitor whose devices are processes of their own
#[derive(Debug, Parser)]
#[command(name = "atoll", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a virtual machine until its guest powers off
    #[command(after_help = EXAMPLES)]
    Run(Box<Run>),
    /// Ask a running machine how it is, or have it do something
    #[command(after_help = CTL_EXAMPLES)]
    Ctl(Box<Ctl>),
    /// Connect this terminal to the console of a running guest; Ctrl-] q leaves
    #[command(after_help = CONSOLE_EXAMPLES)]
    Console(Console),
}

/// `atoll console`
#[derive(Debug, Args)]
pub struct Console {
    /// The machine: its control socket, or the name under which systemd runs it as atoll@NAME
    /// [default: what the environment has as ATOLL_CONTROL]
    #[arg(value_name = "VM", conflicts_with = "attach")]
    pub machine: Option<PathBuf>,
    /// The console's device, if it is not the first
    #[arg(long, value_name = "ID", conflicts_with = "attach")]
    pub device: Option<String>,
    /// A named port instead of the console
    #[arg(long, value_name = "NAME", conflicts_with = "attach")]
    pub port: Option<String>,
    /// The console's own socket or pseudo-terminal, without asking a machine for it
    #[arg(long, value_name = "PATH")]
    pub attach: Option<PathBuf>,
}

/// `atoll ctl`
#[derive(Debug, Args)]
pub struct Ctl {
    /// The machine's control socket [default: what the environment has as ATOLL_CONTROL]
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,
    /// Print what the machine says as it says it, as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What is wanted.
    #[command(subcommand)]
    pub ask: Ask,
}

/// What is wanted of a running machine.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// How the machine is
    Info,
    /// What happened to it, and what happens, one event a line
    Events {
        /// Leave out the events up to this number
        #[arg(long, value_name = "NUMBER")]
        since: Option<u64>,
        /// End after what has happened already
        #[arg(long)]
        no_follow: bool,
    },
    /// Stop all its vCPUs
    Pause,
    /// Let its vCPUs go on
    Resume,
    /// Press the guest's power button
    Shutdown,
    /// What it and the processes of its devices have counted, as Prometheus reads it
    Metrics,
    /// Its devices
    Device {
        /// What is wanted.
        #[command(subcommand)]
        ask: DeviceAsk,
    },
}

/// What is wanted of the devices.
#[derive(Debug, Subcommand)]
pub enum DeviceAsk {
    /// Every device with its backend, and what is outstanding
    List,
    /// Move a running device to another backend; if that fails it stays where it was
    Swap {
        /// The device
        id: String,
        /// Where the other backend listens
        #[arg(value_name = "socket=PATH", value_parser = backend)]
        to: PathBuf,
    },
    /// Drop a device's connection, and look for its backend at once
    Reattach {
        /// The device
        id: String,
    },
    /// How fast a device may be; with options, how fast it may be from now on
    Limit(Limit),
    /// Make a disk longer; without a size, as long as its image has become
    Resize {
        /// The device
        id: String,
        /// Its new length, such as 20G
        size: Option<Size>,
    },
    /// Plug in the cable of a network card, or pull it
    Link {
        /// The device
        id: String,
        /// Whether it is plugged in
        #[arg(value_enum)]
        state: LinkState,
    },
}

/// What becomes of a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LinkState {
    /// It is plugged in.
    Up,
    /// It is pulled.
    Down,
}

/// `atoll ctl device limit`
#[derive(Debug, Args)]
pub struct Limit {
    /// The device
    pub id: String,
    /// A disk's bytes a second, such as 100M; `off` for no limit
    #[arg(long, value_name = "BYTES", value_parser = limit)]
    pub bps: Option<u64>,
    /// How many bytes may go at once after a rest
    #[arg(long, value_name = "BYTES", value_parser = limit)]
    pub bps_burst: Option<u64>,
    /// A disk's operations a second
    #[arg(long, value_name = "N", value_parser = limit)]
    pub iops: Option<u64>,
    /// How many operations may go at once after a rest
    #[arg(long, value_name = "N", value_parser = limit)]
    pub iops_burst: Option<u64>,
    /// Bytes a second that reach the guest over a network card
    #[arg(long, value_name = "BYTES", value_parser = limit)]
    pub rx_bps: Option<u64>,
    /// Their burst
    #[arg(long, value_name = "BYTES", value_parser = limit)]
    pub rx_bps_burst: Option<u64>,
    /// Packets a second that reach the guest
    #[arg(long, value_name = "N", value_parser = limit)]
    pub rx_pps: Option<u64>,
    /// Their burst
    #[arg(long, value_name = "N", value_parser = limit)]
    pub rx_pps_burst: Option<u64>,
    /// Bytes a second that leave the guest over a network card
    #[arg(long, value_name = "BYTES", value_parser = limit)]
    pub tx_bps: Option<u64>,
    /// Their burst
    #[arg(long, value_name = "BYTES", value_parser = limit)]
    pub tx_bps_burst: Option<u64>,
    /// Packets a second that leave the guest
    #[arg(long, value_name = "N", value_parser = limit)]
    pub tx_pps: Option<u64>,
    /// Their burst
    #[arg(long, value_name = "N", value_parser = limit)]
    pub tx_pps_burst: Option<u64>,
}

impl Limit {
    /// What is to change.
    pub fn change(&self) -> Limits {
        let all = [
            ("bps", self.bps),
            ("bps_burst", self.bps_burst),
            ("iops", self.iops),
            ("iops_burst", self.iops_burst),
            ("rx_bps", self.rx_bps),
            ("rx_bps_burst", self.rx_bps_burst),
            ("rx_pps", self.rx_pps),
            ("rx_pps_burst", self.rx_pps_burst),
            ("tx_bps", self.tx_bps),
            ("tx_bps_burst", self.tx_bps_burst),
            ("tx_pps", self.tx_pps),
            ("tx_pps_burst", self.tx_pps_burst),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// `off`, or a number.
fn limit(text: &str) -> Result<u64, String> {
    match text {
        "off" => Ok(0),
        text => text
            .parse()
            .map(|Size(number)| number)
            .map_err(|_neither| "a limit is a number such as 5000, 64K or 100M, or off".to_owned()),
    }
}

/// `socket=PATH`
fn backend(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("socket=") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err("say where the other backend listens, as socket=PATH".to_owned()),
    }
}

/// `atoll run`
#[derive(Debug, Args)]
pub struct Run {
    /// A TOML file with any of the options below, by the same names; the command line wins
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The options themselves.
    #[command(flatten)]
    pub settings: Settings,
}

impl Run {
    /// The machine asked for.
    ///
    /// # Errors
    /// [`ConfigError`], naming the option or the file at fault.
    pub fn into_vm(self) -> Result<VmConfig, ConfigError> {
        let settings = match self.config {
            Some(path) => self.settings.over(Settings::from_file(&path)?),
            None => self.settings,
        };
        settings.into_vm()
    }
}
