//! HTTP over Unix sockets for a few local clients: requests and responses, one connection, and all
//! connections of a socket. What is asked, and who answers, is not known here.
//!
//! Nothing blocks but [`Clients::sleep`]. A client is believed nothing: sizes, times and numbers are
//! bounded.
#![forbid(unsafe_code)]

mod clients;
mod connection;
mod message;

pub use clients::{Clients, Key, MAX_CONNECTIONS};
pub use connection::{Connection, Phase};
pub use message::{
    MAX_REQUEST, Request, Status, Unserved, done, head, json, refuse, take_request, text,
};
