//! `atoll ctl`: the control socket's client. What it asks is in `docs/api.md`; what it prints is for
//! people, unless they want JSON.

mod client;
mod table;

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::{Ask, Ctl, DeviceAsk, LinkState};
use crate::config::Size;

pub(crate) use client::Client;

/// The environment variable that names the socket.
pub(crate) const SOCKET_VARIABLE: &str = "ATOLL_CONTROL";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// No socket was named.
    #[error("no machine is named; give its control socket with --socket or in {SOCKET_VARIABLE}")]
    NoSocket,
    /// Nobody is there.
    #[error("can't reach a machine at {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection failed.
    #[error("the connection to the machine at {path} failed")]
    Connection {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else is there.
    #[error("what answers at {path} is not a machine's control socket: {reason}")]
    Garbage {
        /// The socket.
        path: PathBuf,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The machine says no.
    #[error("{0}")]
    Refused(String),
    /// The answer could not be printed.
    #[error("can't print the answer")]
    Print(#[source] io::Error),
}

impl CtlError {
    /// Whether another command line would help.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::NoSocket)
    }
}

/// Asks what is wanted, and prints the answer.
///
/// # Errors
/// [`CtlError`], with the machine's own sentence where it refuses.
pub fn run(ctl: &Ctl) -> Result<(), CtlError> {
    let named = ctl.socket.clone().or_else(|| env::var_os(SOCKET_VARIABLE).map(PathBuf::from));
    let client = Client::new(named.ok_or(CtlError::NoSocket)?);
    match print(ctl, &client, &mut io::stdout().lock()) {
        // Nobody is left to read it.
        Err(CtlError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn print(ctl: &Ctl, client: &Client, out: &mut impl Write) -> Result<(), CtlError> {
    let (path, done) = match &ctl.ask {
        Ask::Info => return show(ctl, &client.get("vm.info")?, table::info, out),
        Ask::Device { ask: DeviceAsk::List } => {
            return show(ctl, &client.get("devices")?, table::devices, out);
        }
        Ask::Events { since, no_follow } => {
            return events(ctl, client, since.unwrap_or(0), !no_follow, out);
        }
        Ask::Device { ask: DeviceAsk::Swap { id, to } } => {
            // A relative path is ours, and the machine may run elsewhere.
            let to = std::path::absolute(to).unwrap_or_else(|_unknown| to.clone());
            client.put(&format!("devices/{id}/swap"), Some(&json!({ "socket": to })))?;
            let done = format!("device {id} runs on the backend at {}", to.display());
            return say(ctl, &done, out);
        }
        Ask::Device { ask: DeviceAsk::Limit(limit) } => {
            let (resource, change) = (format!("devices/{}/limits", limit.id), limit.change());
            let limits = match change.is_empty() {
                true => client.get(&resource)?,
                false => client.patch(&resource, &json!(change))?,
            };
            return show(ctl, &limits, table::limits, out);
        }
        Ask::Device { ask: DeviceAsk::Resize { id, size } } => {
            let body = size.map_or_else(|| json!({}), |Size(size)| json!({ "size": size }));
            let now = client.patch(&format!("devices/{id}/size"), &body)?;
            return show(ctl, &now, |now| table::size(id, now), out);
        }
        Ask::Device { ask: DeviceAsk::Link { id, state } } => {
            let up = *state == LinkState::Up;
            let now = client.patch(&format!("devices/{id}/link"), &json!({ "up": up }))?;
            return show(ctl, &now, |now| table::link(id, now), out);
        }
        Ask::Metrics => {
            let text = client.text("metrics")?;
            return out.write_all(text.as_bytes()).map_err(CtlError::Print);
        }
        Ask::Pause => ("vm.pause".to_owned(), "all vCPUs have stopped".to_owned()),
        Ask::Resume => ("vm.resume".to_owned(), "the user holds the vCPUs no more".to_owned()),
        Ask::Shutdown => {
            ("vm.power-button".to_owned(), "the guest's power button was pressed".to_owned())
        }
        Ask::Device { ask: DeviceAsk::Reattach { id } } => {
            (format!("devices/{id}/reattach"), format!("device {id} has a backend again"))
        }
    };
    client.put(&path, None)?;
    say(ctl, &done, out)
}

/// Says that something was done. The machine itself says nothing then.
fn say(ctl: &Ctl, done: &str, out: &mut impl Write) -> Result<(), CtlError> {
    if ctl.json { Ok(()) } else { writeln!(out, "{done}").map_err(CtlError::Print) }
}

fn show(
    ctl: &Ctl,
    answer: &Value,
    table: impl Fn(&Value) -> String,
    out: &mut impl Write,
) -> Result<(), CtlError> {
    let text = if ctl.json { format!("{answer:#}\n") } else { table(answer) };
    out.write_all(text.as_bytes()).map_err(CtlError::Print)
}

fn events(
    ctl: &Ctl,
    client: &Client,
    since: u64,
    follow: bool,
    out: &mut impl Write,
) -> Result<(), CtlError> {
    client.follow(&format!("vm.events?since={since}&follow={follow}"), |line| {
        let text = match serde_json::from_str(line) {
            Ok(event) if !ctl.json => table::event(&event),
            _ => format!("{line}\n"),
        };
        let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        printed.map_err(CtlError::Print)
    })
}
