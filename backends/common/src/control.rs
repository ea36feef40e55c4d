//! The control socket of a device process: what it is, what it has done, and what can be turned on
//! it, over HTTP with JSON. One thread serves all clients; none of them can make it wait, and rings never do.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use atoll_http::{self as http, Clients, Request, Status, Unserved};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::device::Device;
use crate::error::Because;
use crate::listen::{self, Endpoint};
use crate::metrics::Metrics;
use crate::named_limits;
use crate::panel::{Link, Panel, Resize, Terminal};
use crate::sandbox::OwnName;

const STACK: usize = 128 * 1024;

/// What `GET /` says.
#[derive(Serialize)]
struct About {
    version: &'static str,
    pid: u32,
    device: &'static str,
    queues: u16,
    /// None where the device can't be limited.
    limits: BTreeMap<String, u64>,
    /// Of a disk, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Of a network card: whether its cable is plugged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    up: Option<bool>,
    /// Of a console: the pseudo-terminals that it has made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    terminals: Vec<Terminal>,
}

/// The body of a resize.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Size {
    size: Option<u64>,
}

/// The body of a change of the link.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Up {
    up: bool,
}

/// What is controlled.
struct Controlled {
    device: Arc<dyn Device>,
    metrics: Arc<Metrics>,
}

/// What the thread answers from, until [`Control`] takes it away.
type Shared = Arc<Mutex<Option<Controlled>>>;

/// The control socket for as long as the process serves. When it is dropped, nobody but its owner
/// has the device any more, so that the owner sees to its end; and the socket's file goes.
pub(crate) struct Control {
    controlled: Shared,
    _file: Option<OwnName>,
}

impl Drop for Control {
    fn drop(&mut self) {
        // Waits for the answer that is being given.
        self.controlled.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Serves `endpoint` on a thread of its own until what is returned is dropped.
pub(crate) fn start(
    endpoint: Endpoint,
    device: Arc<dyn Device>,
    metrics: Arc<Metrics>,
) -> io::Result<Control> {
    let mut clients = Clients::default();
    let (listener, file) = match endpoint {
        Endpoint::Listening(listener) => {
            let (socket, file) = listener.into_parts();
            socket.set_nonblocking(true)?;
            (Some(socket), file)
        }
        Endpoint::Connected(stream) => {
            clients.adopt(stream)?;
            (None, None)
        }
    };
    let controlled: Shared = Arc::new(Mutex::new(Some(Controlled { device, metrics })));
    let shared = Arc::clone(&controlled);
    let serve = move || serve(&shared, listener.as_ref(), clients);
    thread::Builder::new().name("control".into()).stack_size(STACK).spawn(serve)?;
    Ok(Control { controlled, _file: file })
}

fn serve(shared: &Shared, listener: Option<&UnixListener>, mut clients: Clients) {
    while listener.is_some() || !clients.is_empty() {
        let ready = clients.sleep(listener.map(AsFd::as_fd), &[], None);
        if let Some(listener) = listener
            && let Err(error) = clients.accept(|| listen::accept_one(listener))
        {
            tracing::warn!("the control socket can't take one more client: {error}");
        }
        let controlled = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(controlled) = controlled.as_ref() else { return };
        for (key, how) in ready {
            clients.hear(key, how);
            while let Some(client) = clients.get_mut(key) {
                match client.take_request() {
                    Ok(None) => break,
                    Ok(Some(request)) => {
                        let answer = controlled.answer(&request, client.is_last());
                        client.answer(&answer);
                    }
                    Err(unserved) => {
                        client.give_up(&unserved);
                        break;
                    }
                }
            }
            clients.dismiss_if_done(key);
        }
        clients.settle();
    }
}

impl Controlled {
    fn answer(&self, request: &Request, last: bool) -> Vec<u8> {
        let (method, path) = (request.method.as_str(), request.path.as_str());
        let name = self.device.identity().name;
        let allowed = match path {
            "/" | "/metrics" => "GET",
            "/limits" => "GET or PATCH",
            "/size" | "/link" => "PATCH",
            path => {
                let why = format!(
                    "there is nothing at {path}; there are /, /metrics, /limits, /size and /link"
                );
                return http::refuse(&Unserved::new(Status::NotFound, why), last);
            }
        };
        let panel = self.device.panel();
        let answer = match (method, path) {
            ("GET", "/") => return http::json(Status::Ok, &self.about(&panel), last),
            ("GET", "/metrics") => {
                let text = self.metrics.text(name, &panel.counters);
                return http::text(http::PROMETHEUS, &text, last);
            }
            ("GET", "/limits") => Ok(json!(named_limits::read(&panel.limits))),
            ("PATCH", "/limits") => named_limits::change(name, &panel.limits, &request.body)
                .map(|limits| json!(limits))
                .map_err(|error| Unserved::new(Status::BadRequest, error.to_string())),
            ("PATCH", "/size") => resize(name, &panel, &request.body),
            ("PATCH", "/link") => plug(name, &panel, &request.body),
            _ => {
                let why = format!("{path} takes {allowed}, not {method}");
                Err(Unserved::new(Status::MethodNotAllowed, why))
            }
        };
        match answer {
            Ok(value) => http::json(Status::Ok, &value, last),
            Err(unserved) => http::refuse(&unserved, last),
        }
    }

    fn about(&self, panel: &Panel<'_>) -> About {
        let identity = self.device.identity();
        About {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            device: identity.name,
            queues: identity.queues,
            limits: named_limits::read(&panel.limits),
            size: panel.disk.map(Resize::size),
            up: panel.link.map(Link::is_up),
            terminals: panel.terminals.clone(),
        }
    }
}

fn resize(name: &str, panel: &Panel<'_>, body: &[u8]) -> Result<Value, Unserved> {
    let no = |why| Unserved::new(Status::Conflict, why);
    let disk = panel.disk.ok_or_else(|| no(format!("a {name} device has no size")))?;
    let Size { size } = serde_json::from_slice(body).map_err(|error| {
        let why = format!("a resize takes {{\"size\": BYTES}} or {{}}: {error}");
        Unserved::new(Status::BadRequest, why)
    })?;
    disk.resize(size).map_err(|error| no(Because(error.as_ref()).to_string()))?;
    Ok(json!({ "size": disk.size() }))
}

fn plug(name: &str, panel: &Panel<'_>, body: &[u8]) -> Result<Value, Unserved> {
    let no = |why| Unserved::new(Status::Conflict, why);
    let link = panel.link.ok_or_else(|| no(format!("a {name} device has no link")))?;
    let Up { up } = serde_json::from_slice(body).map_err(|error| {
        let why = format!("a link takes {{\"up\": true}} or {{\"up\": false}}: {error}");
        Unserved::new(Status::BadRequest, why)
    })?;
    link.set(up);
    Ok(json!({ "up": link.is_up() }))
}
