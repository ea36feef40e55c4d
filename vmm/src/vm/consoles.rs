//! Where a machine's consoles and their ports are to be found, for whoever wants to attach to one.

use std::collections::BTreeSet;

use crate::config::{BackendConfig, ConsoleTo, VmConfig};
use crate::control::{ConsoleInfo, ConsoleKind};
use crate::control_line::Terminal;

/// The consoles of the machine that `config` describes, each followed by its ports.
pub(super) fn consoles(config: &VmConfig) -> Vec<ConsoleInfo> {
    let mut all = Vec::new();
    for device in &config.devices {
        if let BackendConfig::Console(console) = &device.backend {
            all.push(place(&device.id, None, &console.to));
            let ports = console.ports.iter();
            all.extend(ports.map(|port| place(&device.id, Some(&port.name), &port.to)));
        }
    }
    all
}

/// Whether a console is a pseudo-terminal of which only its process knows the name.
pub(super) fn is_unnamed(console: &ConsoleInfo) -> bool {
    console.to == ConsoleKind::Pty && console.path.is_none()
}

/// `consoles`, with the names of those that have none from what `ask` says of the terminals that a
/// device's process has made; as they are where it says nothing.
pub(super) fn name_terminals(
    consoles: &[ConsoleInfo],
    mut ask: impl FnMut(&str) -> Option<Vec<Terminal>>,
) -> Vec<ConsoleInfo> {
    let mut named = consoles.to_vec();
    let ids: BTreeSet<_> =
        consoles.iter().filter(|one| is_unnamed(one)).map(|one| &one.id).collect();
    for id in ids {
        for terminal in ask(id).unwrap_or_default() {
            let its = |one: &&mut ConsoleInfo| {
                one.id == *id && one.port == terminal.port && is_unnamed(one)
            };
            if let Some(console) = named.iter_mut().find(its) {
                console.path = Some(terminal.path);
            }
        }
    }
    named
}

fn place(id: &str, port: Option<&str>, to: &ConsoleTo) -> ConsoleInfo {
    let (to, path) = match to {
        ConsoleTo::Stdio => (ConsoleKind::Stdio, None),
        ConsoleTo::Pty(link) => (ConsoleKind::Pty, link.as_ref()),
        ConsoleTo::File(path) => (ConsoleKind::File, Some(path)),
        ConsoleTo::Socket(path) => (ConsoleKind::Socket, Some(path)),
    };
    // Who asks may be in another directory. It fails only for an empty path, or without our own.
    let path = path.map(|path| std::path::absolute(path).unwrap_or_else(|_unknown| path.clone()));
    ConsoleInfo { id: id.to_owned(), port: port.map(str::to_owned), to, path }
}

#[cfg(test)]
#[path = "consoles_test.rs"]
mod tests;
