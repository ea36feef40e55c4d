//! The command line of `atoll`. What the options mean is `config`'s business.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigError, Settings, VmConfig};

const EXAMPLES: &str = "\
Examples:
  A guest with three devices, each a process that atoll starts:
    atoll run --kernel vmlinux --cmdline 'root=/dev/vda console=hvc0' \\
              --disk path=root.img --net tap=tap0 --console stdio

  The same disk, served by somebody else:
    atoll-blk --socket-path=/run/vm/blk.sock --blk-file=root.img &
    atoll run --kernel vmlinux --device blk,socket=/run/vm/blk.sock --console stdio

  A machine from a file, with more memory:
    atoll run --config vm.toml --memory 4G,hugepages=2M

Signals: SIGTERM and SIGINT press the guest's power button; a second one, or --grace seconds,
stops the machine at once.

Exit codes: 0 the guest powered off or was stopped by a signal, 1 the machine failed, 2 it was
asked for wrongly.";

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
