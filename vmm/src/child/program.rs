//! Which program serves a device of ours, and with which arguments.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::ChildError;
use super::address::{self, Origin};
use crate::config::{
    BackendConfig, ConsoleConfig, ConsoleTo, DiskConfig, NetConfig, NetTo, PortConfig,
};
use crate::control_line::{Limits, Settings};

/// A backend's command line, but for its socket.
#[derive(Clone, Debug)]
pub struct Program {
    pub(super) name: &'static str,
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<OsString>,
    /// Whether it has our terminal.
    pub(super) on_terminal: bool,
}

impl Program {
    /// The backend for `config`, which is the device `id` of the machine whose control socket is
    /// `vm`.
    ///
    /// # Errors
    /// [`ChildError`], also where the device is somebody else's to serve.
    pub fn of(
        config: &BackendConfig,
        cpus: u8,
        vm: Option<&Path>,
        id: &str,
    ) -> Result<Self, ChildError> {
        let host = address::host();
        let (name, arguments) =
            command_line(config, cpus, Origin { host: host.as_deref(), vm, id })?;
        let path = find(name).ok_or(ChildError::NotFound { program: name })?;
        Ok(Self { name, path, arguments, on_terminal: on_terminal(config) })
    }

    /// What the first process that serves `config` starts with, and others may change.
    pub fn settings(config: &BackendConfig) -> Settings {
        Settings::new(match config {
            BackendConfig::Disk(disk) => disk.limits.clone(),
            BackendConfig::Net(net) => net.limits.clone(),
            _ => Limits::new(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// The backend's name, and all its arguments but the socket.
fn command_line(
    config: &BackendConfig,
    cpus: u8,
    origin: Origin<'_>,
) -> Result<(&'static str, Vec<OsString>), ChildError> {
    let (name, sandbox, mut arguments) = match config {
        BackendConfig::Disk(disk) => ("atoll-blk", disk.sandbox, blk(disk, cpus)),
        BackendConfig::Net(net) => ("atoll-net", net.sandbox, net_arguments(net, origin)),
        BackendConfig::Console(console) => {
            ("atoll-console", console.sandbox, console_arguments(console))
        }
        BackendConfig::Socket(_) => return Err(ChildError::NotOurs),
    };
    if !sandbox {
        arguments.push("--no-sandbox".into());
    }
    Ok((name, arguments))
}

/// The backend beside our own executable, else the first on PATH.
fn find(program: &str) -> Option<PathBuf> {
    let beside = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let path = env::var_os("PATH").unwrap_or_default();
    let places = beside.into_iter().chain(env::split_paths(&path));
    places.map(|place| place.join(program)).find(|candidate| candidate.is_file())
}

fn on_terminal(config: &BackendConfig) -> bool {
    matches!(config, BackendConfig::Console(ConsoleConfig { to: ConsoleTo::Stdio, .. }))
}

/// `--name=value`, whatever bytes the value holds.
fn option(name: &str, value: impl Into<OsString>) -> OsString {
    let mut option = OsString::from(format!("--{name}="));
    option.push(value.into());
    option
}

fn blk(disk: &DiskConfig, cpus: u8) -> Vec<OsString> {
    let queues = disk.queues.unwrap_or(cpus.into());
    let mut arguments =
        vec![option("blk-file", &disk.path), option("num-queues", queues.to_string())];
    if disk.readonly {
        arguments.push("--read-only".into());
    }
    if disk.snapshot {
        arguments.push("--snapshot".into());
    }
    arguments.extend(disk.format.as_ref().map(|format| option("format", format)));
    arguments.extend(disk.cache.as_ref().map(|cache| option("cache", cache)));
    arguments.extend(disk.on_enospc.as_ref().map(|policy| option("on-enospc", policy)));
    arguments.extend(disk.serial.as_ref().map(|serial| option("serial", serial)));
    arguments
}

fn net_arguments(net: &NetConfig, origin: Origin<'_>) -> Vec<OsString> {
    let mut arguments = match &net.to {
        NetTo::Tap(name) => vec![option("tap", name)],
        NetTo::Bridge(name) => vec![option("bridge", name)],
        NetTo::Macvtap(name) => vec![option("macvtap", name)],
        NetTo::Stream(path) => vec![option("stream", path)],
        NetTo::StreamServer(path) => vec![option("stream-server", path)],
        NetTo::Datagrams(here, there) => vec!["--dgram".into(), here.into(), there.into()],
        NetTo::User(forwards) => {
            let forwards = forwards.iter().map(|forward| option("hostfwd", forward));
            std::iter::once("--user-net".into()).chain(forwards).collect()
        }
    };
    let mac = net.mac.clone().or_else(|| address::derived(&net.to, origin));
    arguments.extend(mac.map(|mac| option("mac", mac)));
    arguments.extend(net.mtu.map(|mtu| option("mtu", mtu.to_string())));
    arguments.extend(net.queue_pairs.map(|pairs| option("queue-pairs", pairs.to_string())));
    arguments
}

fn console_arguments(console: &ConsoleConfig) -> Vec<OsString> {
    let mut arguments = vec![match &console.to {
        ConsoleTo::Stdio => "--stdio".into(),
        ConsoleTo::Pty(None) => "--pty".into(),
        ConsoleTo::Pty(Some(link)) => option("pty", link),
        ConsoleTo::File(path) => option("file", path),
        ConsoleTo::Socket(path) => option("unix", path),
    }];
    arguments.extend(console.ports.iter().map(port_argument));
    arguments
}

fn port_argument(port: &PortConfig) -> OsString {
    let (kind, path) = match &port.to {
        // A port does not parse that leads to the terminal.
        ConsoleTo::Stdio | ConsoleTo::Pty(None) => ("pty", None),
        ConsoleTo::Pty(Some(link)) => ("pty=", Some(link)),
        ConsoleTo::File(path) => ("file=", Some(path)),
        ConsoleTo::Socket(path) => ("unix=", Some(path)),
    };
    let mut value = OsString::from(format!("{}:{kind}", port.name));
    value.extend(path.map(|path| path.as_os_str()));
    option("port", value)
}

#[cfg(test)]
#[path = "program_test.rs"]
mod tests;
