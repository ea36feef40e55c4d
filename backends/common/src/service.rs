//! What a service manager is told of this process (sd_notify(3)), where one wants to know. The
//! socket is opened once: later none can be.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;

use sd_notify::NotifyState;

static MANAGER: OnceLock<UnixDatagram> = OnceLock::new();

/// Finds the service manager, if there is one.
pub(crate) fn connect() {
    let Some(place) = env::var_os("NOTIFY_SOCKET") else { return };
    let connected = address(place.as_bytes()).and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        Ok(socket)
    });
    match connected {
        Ok(socket) => {
            MANAGER.get_or_init(|| socket);
        }
        Err(error) => {
            tracing::warn!("the service manager at {} is not there: {error}", place.display());
        }
    }
}

/// A path, or a name without a file behind an `@`.
fn address(place: &[u8]) -> io::Result<SocketAddr> {
    match place.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(place)),
    }
}

/// Says that this process is ready, or is about to end.
pub(crate) fn notify(state: &NotifyState<'_>) {
    let Some(manager) = MANAGER.get() else { return };
    // What it can't be told it can't be told.
    if let Err(error) = manager.send(state.to_string().as_bytes()) {
        tracing::warn!("the service manager does not hear {state}: {error}");
    }
}
