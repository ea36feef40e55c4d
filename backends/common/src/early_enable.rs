//! Rings that are enabled before any feature is set.
//!
//! QEMU's network front-end does so: that protocol features were offered is enough for it. `vhost`
//! wants them acknowledged first and cuts the connection, so until then this request is read here.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use vhost::vhost_user::VhostUserBackendReqHandlerMut;

use crate::back_channel::{HEADER, Header};
use crate::error::Because;
use crate::serve::lock;
use crate::session::Session;

/// Serves the request whose `header` was seen; `false` when the front-end is to be cut off.
pub(crate) fn serve(
    mut socket: &UnixStream,
    header: Header,
    session: &Mutex<Session>,
) -> io::Result<bool> {
    socket.read_exact(&mut [0; HEADER])?;
    // vhost-user, "A vring state description": the index, and here 1 or 0.
    let mut state = [0; 8];
    socket.read_exact(&mut state)?;
    let [i0, i1, i2, i3, n0, n1, n2, n3] = state;
    let index = u32::from_ne_bytes([i0, i1, i2, i3]);
    let enable = u32::from_ne_bytes([n0, n1, n2, n3]) != 0;

    let mut session = lock(session);
    let done = session.set_vring_enable(index, enable);
    if let Err(error) = &done {
        tracing::error!("front-end cut off, SET_VRING_ENABLE refused: {}", Because(error));
    }
    if session.replies_to_all()
        && let Some(reply) = header.reply(done.is_err().into())
    {
        socket.write_all(&reply)?;
    }
    Ok(done.is_ok())
}

#[cfg(test)]
#[path = "early_enable_test.rs"]
mod tests;
