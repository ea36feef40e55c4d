//! The command line of `atoll-console`.

use std::path::PathBuf;

use atoll_backend::Args;

const EXAMPLES: &str = "\
Examples:
  The guest's console in this terminal:
      atoll-console --socket-path=/run/vm/console.sock --stdio

  A pseudo-terminal with a stable name, to attach to with screen, picocom or socat:
      atoll-console --socket-path=/run/vm/console.sock --pty=/run/vm/console
      screen /run/vm/console

  A socket to connect to, one at a time; output is kept while nobody is connected:
      atoll-console --socket-path=/run/vm/console.sock --unix=/run/vm/attach.sock
      socat -,rawer UNIX-CONNECT:/run/vm/attach.sock

  A log file, added to:
      atoll-console --socket-path=/run/vm/console.sock --file=/var/log/vm/console.log

Exit codes: 0 asked to end, or the only front-end left; 1 failure; 2 wrong command line.
RUST_LOG=info (or debug) says more on standard error.";

/// Serves a terminal, pty, socket or file as a vhost-user console.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "atoll-console", version, after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("outlet").required(true).args([
    "stdio", "pty", "unix", "file", "print_capabilities",
])))]
pub struct Options {
    /// What every device process takes.
    #[command(flatten)]
    pub backend: Args,

    /// The guest's console is this terminal, raw until the end
    #[arg(long)]
    pub stdio: bool,

    /// The guest's console is a new pseudo-terminal, with a symbolic link to it
    #[arg(long, value_name = "LINK", num_args = 0..=1, require_equals = true)]
    pub pty: Option<Option<PathBuf>>,

    /// The guest's console is whoever connects to this socket
    #[arg(long, value_name = "PATH")]
    pub unix: Option<PathBuf>,

    /// What the guest prints is added to this file
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}
