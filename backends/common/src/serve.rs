//! One front-end from its first message to its last: reads, hands to the session, and judges what
//! goes wrong.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::socket::{getsockopt, sockopt};
use vhost::vhost_user::{BackendReqHandler, Error as WireError};

use crate::back_channel::{ConfigChange, Header};
use crate::device::Device;
use crate::early_enable;
use crate::error::Because;
use crate::metrics::Metrics;
use crate::session::{Refused, Session};
use crate::signals::EndRequest;

/// Serves one front-end until it leaves, breaks the protocol, or the process is to end.
///
/// # Errors
/// When the connection can't even be set up.
pub(crate) fn serve(
    device: &Arc<dyn Device>,
    metrics: Option<&Arc<Metrics>>,
    connection: UnixStream,
    config_change: &ConfigChange,
    end: &EndRequest,
) -> io::Result<()> {
    // It may have been inherited, or accepted, as one that does not block.
    connection.set_nonblocking(false)?;
    end.cuts(Some(connection.try_clone()?));
    let socket = connection.try_clone()?;
    let pid = getsockopt(&socket, sockopt::PeerCredentials).map_or(0, |peer| peer.pid());
    tracing::info!("front-end connected, process {pid}");

    let session = Arc::new(Mutex::new(Session::new(Arc::clone(device), metrics.cloned())));
    let mut wire = BackendReqHandler::from_stream(connection, Arc::clone(&session));
    while serve_message(&socket, &mut wire, &session, config_change) {}

    end.cuts(None);
    config_change.close();
    lock(&session).end();
    Ok(())
}

/// Serves one message; `false` when it was the last.
fn serve_message(
    socket: &UnixStream,
    wire: &mut BackendReqHandler<Mutex<Session>>,
    session: &Mutex<Session>,
    config_change: &ConfigChange,
) -> bool {
    let header = match Header::peek(socket) {
        Ok(header) => header,
        Err(error) => return left(&error),
    };
    if let Some(header) = header.filter(Header::opens_back_channel) {
        let may_reply = lock(session).replies_to_all();
        return match config_change.open(socket, header, may_reply) {
            Ok(()) => true,
            Err(error) => left(&error),
        };
    }
    if let Some(header) = header.filter(Header::enables_ring)
        && !lock(session).features_set()
    {
        return match early_enable::serve(socket, header, session) {
            Ok(served) => served,
            Err(error) => left(&error),
        };
    }
    let name = header.map_or_else(|| "half a message".into(), |header| header.name());
    match wire.handle_request() {
        Ok(()) => true,
        Err(WireError::Disconnected) => {
            tracing::info!("the front-end left");
            false
        }
        Err(WireError::SocketBroken(error)) => left(&error),
        Err(WireError::ReqHandlerError(error)) => judge(&name, &error),
        Err(WireError::InactiveOperation(feature)) => {
            let names: Vec<_> = feature.iter_names().map(|(name, _)| name).collect();
            tracing::error!("front-end cut off, {name} needs {}", names.join(" and "));
            false
        }
        Err(error) => {
            tracing::error!("front-end cut off after {name}: {error}");
            false
        }
    }
}

/// The session refused a message. The driver may well write nonsense to the configuration space;
/// everything else comes from the front-end, which is better off without us than with half of what
/// it asked for.
fn judge(name: &str, error: &io::Error) -> bool {
    let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>());
    match refused {
        Some(refused @ (Refused::Config(_) | Refused::ConfigRange { .. })) => {
            tracing::debug!("{name} refused: {}", Because(refused));
            true
        }
        Some(refused) => {
            tracing::error!("front-end cut off, {name} refused: {}", Because(refused));
            false
        }
        None => {
            tracing::error!("front-end cut off, {name} failed: {error}");
            false
        }
    }
}

fn left(error: &io::Error) -> bool {
    tracing::info!("the front-end left: {error}");
    false
}

pub(crate) fn lock(session: &Mutex<Session>) -> std::sync::MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}
