//! Which request asks for what (`docs/api.md`, "Requests"). Pure.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Action, Refusal};
use crate::control_line::{Limits, limit_name, limit_names};
use atoll_http::{Request, Status, Unserved};

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Info,
    Devices,
    Device(String),
    Events { since: Option<u64>, follow: bool },
    Act(Action),
}

/// The body of a swap.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Swap {
    socket: PathBuf,
}

/// The body of a resize.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    size: Option<u64>,
}

/// The body of a change of the link.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    up: bool,
}

/// What `request` asks for.
pub(super) fn wish(request: &Request) -> Result<Wish, Unserved> {
    let nothing = || {
        let why = format!("there is nothing at {}; see docs/api.md", request.path);
        Unserved::new(Status::NotFound, why)
    };
    // Where Prometheus looks unless it is told otherwise.
    let rest = match request.path.as_str() {
        "/metrics" => "metrics",
        path => path.strip_prefix("/api/v1/").ok_or_else(nothing)?,
    };
    let parts: Vec<_> = rest.split('/').collect();
    let (method, wish) = match *parts {
        ["vm.info"] => ("GET", Wish::Info),
        ["vm.events"] => ("GET", events(request)?),
        ["vm.pause"] => ("PUT", Wish::Act(Action::Pause)),
        ["vm.resume"] => ("PUT", Wish::Act(Action::Resume)),
        ["vm.power-button"] => ("PUT", Wish::Act(Action::PowerButton)),
        ["devices"] => ("GET", Wish::Devices),
        ["devices", id] => ("GET", Wish::Device(id.to_owned())),
        ["devices", id, "reattach"] => ("PUT", Wish::Act(Action::Reattach { id: id.to_owned() })),
        ["metrics"] => ("GET", Wish::Act(Action::Metrics)),
        ["devices", id, "limits"] if request.method == "GET" => {
            ("GET", Wish::Act(Action::Limits { id: id.to_owned() }))
        }
        // Bodies are looked at only when the method is right.
        ["devices", id, "swap"] if request.method == "PUT" => ("PUT", swap(id, &request.body)?),
        ["devices", _, "swap"] => ("PUT", Wish::Devices),
        ["devices", id, what @ ("limits" | "size" | "link")] if request.method == "PATCH" => {
            ("PATCH", Wish::Act(turn(id, what, &request.body)?))
        }
        ["devices", _, "limits"] => ("GET or PATCH", Wish::Devices),
        ["devices", _, "size" | "link"] => ("PATCH", Wish::Devices),
        _ => return Err(nothing()),
    };
    if request.method != method {
        let why = format!("{} takes {method}, not {}", request.path, request.method);
        return Err(Unserved::new(Status::MethodNotAllowed, why));
    }
    Ok(wish)
}

fn swap(id: &str, body: &[u8]) -> Result<Wish, Unserved> {
    match serde_json::from_slice::<Swap>(body) {
        Ok(Swap { socket }) => Ok(Wish::Act(Action::Swap { id: id.to_owned(), socket })),
        Err(error) => {
            let why = format!("a swap takes {{\"socket\": \"PATH\"}}: {error}");
            Err(Unserved::new(Status::BadRequest, why))
        }
    }
}

/// What can be changed on a device while it runs.
fn turn(id: &str, what: &str, body: &[u8]) -> Result<Action, Unserved> {
    let id = id.to_owned();
    let wrong = |takes: &str, error: serde_json::Error| {
        Unserved::new(Status::BadRequest, format!("{what} takes {takes}: {error}"))
    };
    match what {
        "size" => match serde_json::from_slice(body) {
            Ok(Resize { size }) => Ok(Action::Resize { id, size }),
            Err(error) => Err(wrong("{\"size\": BYTES} or {}", error)),
        },
        "link" => match serde_json::from_slice(body) {
            Ok(Link { up }) => Ok(Action::Link { id, up }),
            Err(error) => Err(wrong("{\"up\": true} or {\"up\": false}", error)),
        },
        _ => {
            let asked: BTreeMap<String, u64> = serde_json::from_slice(body)
                .map_err(|error| wrong("numbers by the names of limits", error))?;
            let known = |(name, value): (String, u64)| match limit_name(&name) {
                Some(name) => Ok((name, value)),
                None => {
                    let names = limit_names().join(", ");
                    let why = format!("there is no limit `{name}`; there are {names}");
                    Err(Unserved::new(Status::BadRequest, why))
                }
            };
            let change = asked.into_iter().map(known).collect::<Result<Limits, _>>()?;
            Ok(Action::Limit { id, change })
        }
    }
}

fn events(request: &Request) -> Result<Wish, Unserved> {
    let (mut since, mut follow) = (None, true);
    for (key, value) in &request.query {
        let wrong = || {
            let why = format!(
                "vm.events takes since=NUMBER and follow=true or follow=false, not {key}={value}"
            );
            Unserved::new(Status::BadRequest, why)
        };
        match key.as_str() {
            "since" => since = Some(value.parse().map_err(|_not_a_number| wrong())?),
            "follow" => follow = value.parse().map_err(|_neither| wrong())?,
            _ => return Err(wrong()),
        }
    }
    Ok(Wish::Events { since, follow })
}

impl From<&Refusal> for Unserved {
    fn from(refusal: &Refusal) -> Self {
        let status = match refusal {
            Refusal::NoDevice { .. } => Status::NotFound,
            Refusal::Wrong(_) => Status::BadRequest,
            Refusal::Conflict(_) => Status::Conflict,
        };
        Self::new(status, refusal.to_string())
    }
}

#[cfg(test)]
#[path = "api_test.rs"]
mod tests;
