//! HTTP over Unix sockets for a few local clients: requests and responses, one connection, and all
//! connections of a socket. What is asked, and who answers, is not known here.
//!
//! Nothing that answers blocks but [`Clients::sleep`]; who asks, with an [`Asker`], says for how
//! long. Neither believes the other anything: sizes, times and numbers are bounded.
#![forbid(unsafe_code)]

mod answer;
mod asker;
mod clients;
mod connection;
mod message;

pub use answer::{Answer, BadAnswer, request, take_answer};
pub use asker::{AskError, Asker};
pub use clients::{Clients, Key, MAX_CONNECTIONS};
pub use connection::{Connection, Phase};
pub use message::{
    MAX_REQUEST, PROMETHEUS, Request, Status, Unserved, done, head, json, refuse, take_request,
    text,
};
