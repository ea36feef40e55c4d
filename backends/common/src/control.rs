//! The control socket of a device process: what it is, what it has done, and its limits, over HTTP
//! with JSON. One thread serves all clients; none of them can make it wait, and rings never do.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;

use atoll_http::{self as http, Clients, Request, Status, Unserved};
use serde::Serialize;

use crate::device::Device;
use crate::limits::{LimitChange, Limiter, Limits};
use crate::listen::{self, Endpoint};
use crate::metrics::Metrics;
use crate::sandbox::OwnName;

const STACK: usize = 128 * 1024;

/// Prometheus' text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What `GET /` says.
#[derive(Serialize)]
struct About {
    version: &'static str,
    pid: u32,
    device: &'static str,
    queues: u16,
    /// `null` where the device can't be limited.
    limits: Option<Limits>,
}

/// What is controlled.
struct Controlled {
    device: Arc<dyn Device>,
    metrics: Arc<Metrics>,
}

/// Serves `endpoint` on a thread of its own for the rest of the process's life. The socket's file,
/// if it is ours, goes when what is returned is dropped.
pub(crate) fn start(
    endpoint: Endpoint,
    device: Arc<dyn Device>,
    metrics: Arc<Metrics>,
) -> io::Result<Option<OwnName>> {
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
    let controlled = Controlled { device, metrics };
    let serve = move || controlled.serve(listener.as_ref(), clients);
    thread::Builder::new().name("control".into()).stack_size(STACK).spawn(serve)?;
    Ok(file)
}

impl Controlled {
    fn serve(&self, listener: Option<&UnixListener>, mut clients: Clients) {
        while listener.is_some() || !clients.is_empty() {
            let ready = clients.sleep(listener.map(AsFd::as_fd), &[], None);
            if let Some(listener) = listener
                && let Err(error) = clients.accept(|| listen::accept_one(listener))
            {
                tracing::warn!("the control socket can't take one more client: {error}");
            }
            for (key, how) in ready {
                clients.hear(key, how);
                while let Some(client) = clients.get_mut(key) {
                    match client.take_request() {
                        Ok(None) => break,
                        Ok(Some(request)) => {
                            let answer = self.answer(&request, client.is_last());
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

    fn answer(&self, request: &Request, last: bool) -> Vec<u8> {
        let identity = self.device.identity();
        let limiter = self.device.limiter();
        let allowed = match request.path.as_str() {
            "/" | "/metrics" => "GET",
            "/limits" => "GET or PATCH",
            path => {
                let why = format!("there is nothing at {path}; there are /, /metrics and /limits");
                return http::refuse(&Unserved::new(Status::NotFound, why), last);
            }
        };
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/") => {
                let about = About {
                    version: env!("CARGO_PKG_VERSION"),
                    pid: std::process::id(),
                    device: identity.name,
                    queues: identity.queues,
                    limits: limiter.map(Limiter::limits),
                };
                http::json(Status::Ok, &about, last)
            }
            ("GET", "/metrics") => http::text(PROMETHEUS, &self.metrics.text(identity.name), last),
            ("GET" | "PATCH", "/limits") => {
                let limits = match limiter {
                    None => {
                        let why = format!("a {} device has no limits", identity.name);
                        Err(Unserved::new(Status::Conflict, why))
                    }
                    Some(limiter) if request.method == "GET" => Ok(limiter.limits()),
                    Some(limiter) => change(limiter, &request.body),
                };
                match limits {
                    Ok(limits) => http::json(Status::Ok, &limits, last),
                    Err(unserved) => http::refuse(&unserved, last),
                }
            }
            (method, path) => {
                let why = format!("{path} takes {allowed}, not {method}");
                http::refuse(&Unserved::new(Status::MethodNotAllowed, why), last)
            }
        }
    }
}

fn change(limiter: &Limiter, body: &[u8]) -> Result<Limits, Unserved> {
    let change: LimitChange = serde_json::from_slice(body).map_err(|error| {
        let why = format!("limits are numbers named bps, bps_burst, iops and iops_burst: {error}");
        Unserved::new(Status::BadRequest, why)
    })?;
    let limits = limiter.change(change);
    limits.map_err(|error| Unserved::new(Status::BadRequest, error.to_string()))
}
