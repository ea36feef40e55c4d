//! Where a machine's consoles and their ports are to be found, for whoever wants to attach to one.

use crate::config::{BackendConfig, ConsoleTo, VmConfig};
use crate::control::{ConsoleInfo, ConsoleKind};

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
