//! The command line of `atoll-console`.

use std::path::PathBuf;
use std::str::FromStr;

use atoll_backend::Args;

const EXAMPLES: &str = "\
Examples:
  The guest's console in this terminal:
      atoll-console --socket-path=/run/vm/console.sock --stdio

  A pseudo-terminal with a stable name, to attach to with screen, picocom or atoll console:
      atoll-console --socket-path=/run/vm/console.sock --pty=/run/vm/console
      screen /run/vm/console

  A socket to connect to: all who do see the console, the first may type:
      atoll-console --socket-path=/run/vm/console.sock --unix=/run/vm/attach.sock
      atoll console --attach /run/vm/attach.sock

  A log file, added to:
      atoll-console --socket-path=/run/vm/console.sock --file=/var/log/vm/console.log

  A console and a port for the QEMU guest agent, /dev/virtio-ports/org.qemu.guest_agent.0 in the guest:
      atoll-console --socket-path=/run/vm/console.sock --pty=/run/vm/console \\
                    --port=org.qemu.guest_agent.0:unix=/run/vm/agent.sock

Exit codes: 0 asked to end, or the only front-end left; 1 failure; 2 wrong command line; 3 the user at
the terminal left by Ctrl-] q.
RUST_LOG=info (or debug) says more on standard error.";

/// The longest name of a port; the guest makes a file name of it.
const MAX_NAME: usize = 128;

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

    /// The guest's console is whoever connects to this socket: all read, the first types
    #[arg(long, value_name = "PATH")]
    pub unix: Option<PathBuf>,

    /// What the guest prints is added to this file
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Whoever attaches gets all the output that is kept, instead of what nobody has read yet
    #[arg(long)]
    pub replay: bool,

    /// A further port, /dev/virtio-ports/NAME in the guest; may be repeated
    #[arg(long, value_name = "NAME:unix=PATH|pty[=LINK]|file=FILE")]
    pub port: Vec<PortOption>,
}

impl Options {
    /// Where the console itself leads.
    pub(crate) fn to(&self) -> To {
        match (&self.pty, &self.unix, &self.file) {
            (Some(link), _, _) => To::Pty(link.clone()),
            (_, Some(path), _) => To::Unix(path.clone()),
            (_, _, Some(path)) => To::File(path.clone()),
            _ => To::Stdio,
        }
    }
}

/// Where a port's bytes go and come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// This terminal.
    Stdio,
    /// A new pseudo-terminal, with a symbolic link to it where one is named.
    Pty(Option<PathBuf>),
    /// Whoever connects to this socket.
    Unix(PathBuf),
    /// A file, output only.
    File(PathBuf),
}

/// `--port`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOption {
    pub(crate) name: String,
    pub(crate) to: To,
}

impl FromStr for PortOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, to) = text.split_once(':').ok_or(
            "say its name and where it leads, as NAME:unix=PATH, NAME:pty or NAME:file=FILE",
        )?;
        let printable = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if name.is_empty() || name.len() > MAX_NAME || !printable {
            let of = "printable ASCII without slash and colon";
            return Err(format!("a port's name has 1 to {MAX_NAME} characters of {of}"));
        }
        let to = match to.split_once('=') {
            Some(("unix" | "socket", path)) if !path.is_empty() => To::Unix(path.into()),
            Some(("file", path)) if !path.is_empty() => To::File(path.into()),
            Some(("pty", link)) if !link.is_empty() => To::Pty(Some(link.into())),
            None if to == "pty" => To::Pty(None),
            _ => return Err(format!("`{to}` is none of unix=PATH, pty, pty=LINK and file=FILE")),
        };
        Ok(Self { name: name.to_owned(), to })
    }
}

#[cfg(test)]
#[path = "options_test.rs"]
mod tests;
