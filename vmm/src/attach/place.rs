//! Where a console is: found by its machine's control socket, or named.

use std::env;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::AttachError;
use super::link::Link;
use crate::cli::Console;
use crate::control::{ConsoleInfo, ConsoleKind};
use crate::ctl::{Client, SOCKET_VARIABLE};

/// Where systemd's `atoll@NAME` has a directory for each machine.
const UNITS: &str = "/run/atoll";

/// Where a console is.
pub(super) struct Place {
    path: PathBuf,
    /// Whose it is, if a machine was asked for it.
    machine: Option<PathBuf>,
    name: String,
}

/// What is read of a machine's answer.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    state: String,
    #[serde(default)]
    consoles: Vec<ConsoleInfo>,
}

impl Place {
    /// Finds the console that is wanted.
    pub(super) fn find(wanted: &Console) -> Result<Self, AttachError> {
        if let Some(path) = &wanted.attach {
            let name = format!("the console at {}", path.display());
            return Ok(Self { path: path.clone(), machine: None, name });
        }
        let (machine, unit) = machine(wanted.machine.as_deref())?;
        let consoles = ask(&machine)?.consoles;
        let whose = |console: String| format!("{console} of the machine at {}", machine.display());
        let found = choose(wanted, &consoles);
        // Its process may be a unit of its own.
        let beside =
            unit.map(|unit| Path::new(UNITS).join("console").join(unit).join("attach.sock"));
        let asked = wanted.device.is_some() || wanted.port.is_some();
        if let Some(path) = beside.filter(|path| consoles.is_empty() && !asked && path.exists()) {
            let name = format!("the console at {}", path.display());
            return Ok(Self { path, machine: Some(machine), name });
        }
        let Some(console) = found else {
            return Err(missing(machine, wanted, &consoles));
        };
        let name = describe(console);
        match (console.to, &console.path) {
            (ConsoleKind::Socket | ConsoleKind::Pty, Some(path)) => {
                let (path, name) = (path.clone(), whose(name));
                Ok(Self { path, machine: Some(machine), name })
            }
            _ => Err(AttachError::Unattachable { machine, console: name, why: obstacle(console) }),
        }
    }

    /// What it is called.
    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    /// Connects to it.
    pub(super) fn open(&self) -> Result<Link, AttachError> {
        let path = &self.path;
        let metadata = path.metadata();
        let kind = metadata
            .map_err(|source| AttachError::Missing { path: path.clone(), source })?
            .file_type();
        let link = match (kind.is_socket(), kind.is_char_device()) {
            (true, _) => Link::to_socket(path),
            (_, true) => Link::to_terminal(path),
            _ => return Err(AttachError::NotAConsole { path: path.clone() }),
        };
        link.map_err(|source| AttachError::Refused { path: path.clone(), source })
    }

    /// Whether a console that was lost may be there again: its process is started anew as long as there
    /// is a machine.
    pub(super) fn may_come_back(&self) -> bool {
        let machine = self.machine.as_deref().map(ask);
        machine.is_some_and(|answer| answer.is_ok_and(|answer| answer.state != "ended"))
    }
}

/// The control socket of the machine that is wanted, and its unit if it was named by that.
fn machine(named: Option<&Path>) -> Result<(PathBuf, Option<&Path>), AttachError> {
    let Some(named) = named else {
        let socket = env::var_os(SOCKET_VARIABLE).ok_or(AttachError::NoMachine)?;
        return Ok((socket.into(), None));
    };
    let unit = Path::new(UNITS).join(named).join("control");
    match named.exists() || named.components().count() != 1 || named.is_absolute() {
        true => Ok((named.into(), None)),
        false if unit.exists() => Ok((unit, Some(named))),
        false => Err(AttachError::NoSuchMachine { name: named.display().to_string(), unit }),
    }
}

fn ask(machine: &Path) -> Result<Answer, AttachError> {
    let answer = Client::new(machine.into()).get("vm.info")?;
    let parsed = Answer::deserialize(answer);
    parsed.map_err(|source| AttachError::Answer { machine: machine.into(), source })
}

/// The one that is wanted; unless that is said, the first that can be had.
fn choose<'a>(wanted: &Console, consoles: &'a [ConsoleInfo]) -> Option<&'a ConsoleInfo> {
    let device = wanted.device.as_ref();
    let fits = |console: &&ConsoleInfo| {
        console.port == wanted.port && device.is_none_or(|id| *id == console.id)
    };
    let mut all = consoles.iter().filter(fits);
    all.clone().find(|console| is_attachable(console)).or_else(|| all.next())
}

fn is_attachable(console: &ConsoleInfo) -> bool {
    matches!(console.to, ConsoleKind::Socket | ConsoleKind::Pty) && console.path.is_some()
}

fn describe(console: &ConsoleInfo) -> String {
    match &console.port {
        Some(port) => format!("port {port} of console {}", console.id),
        None => format!("console {}", console.id),
    }
}

fn missing(machine: PathBuf, wanted: &Console, consoles: &[ConsoleInfo]) -> AttachError {
    if consoles.is_empty() {
        return AttachError::NoConsole { machine };
    }
    let words = [("port", &wanted.port), ("console", &wanted.device)];
    let words = words.iter().filter_map(|(what, name)| Some(format!("{what} {}", name.as_ref()?)));
    let wanted = words.collect::<Vec<_>>().join(" of ");
    let has = consoles.iter().map(describe).collect::<Vec<_>>().join(", ");
    AttachError::NoSuchConsole { machine, wanted, has }
}

fn obstacle(console: &ConsoleInfo) -> String {
    match (console.to, &console.path) {
        (ConsoleKind::File, Some(path)) => format!("it is written to the file {}", path.display()),
        (ConsoleKind::Pty, _) => {
            "it is a pseudo-terminal without a link, and its process does not say its name now; \
             try again, or start the machine with --console pty=LINK"
                .to_owned()
        }
        _ => "it is the terminal in which the machine was started; start the machine with \
              --console socket=PATH for one to attach to"
            .to_owned(),
    }
}

#[cfg(test)]
#[path = "place_test.rs"]
mod tests;
