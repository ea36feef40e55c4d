//! Backends that misbehave: a socket whose far end a test plays itself, message by message.
//!
//! It knows the frame of a vhost-user message and nothing of what a right backend would say.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::scratch::Scratch;

/// VHOST_USER_GET_FEATURES.
pub const GET_FEATURES: u32 = 1;
/// VHOST_USER_GET_PROTOCOL_FEATURES.
pub const GET_PROTOCOL_FEATURES: u32 = 15;
/// VHOST_USER_GET_QUEUE_NUM.
pub const GET_QUEUE_NUM: u32 = 17;
/// VHOST_USER_GET_CONFIG.
pub const GET_CONFIG: u32 = 24;

/// A listening socket and the thread that plays the backend on it.
pub struct Peer {
    socket: PathBuf,
    _scratch: Scratch,
}

/// A message from the front-end: its request number and its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// VHOST_USER_….
    pub request: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Peer {
    /// Plays `part` for each front-end that connects, one after the other.
    #[track_caller]
    pub fn play(part: impl Fn(UnixStream) + Send + 'static) -> Self {
        let scratch = Scratch::new();
        let socket = scratch.join("vhost0");
        let listener = UnixListener::bind(&socket).expect("listen as a backend");
        // The thread ends with the test's process: it may be waiting for a front-end.
        std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(part));
        Self { socket, _scratch: scratch }
    }

    /// The socket it listens on.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// The next message, or `None` when the front-end has gone.
pub fn hear(stream: &mut UnixStream) -> Option<Message> {
    let mut header = [0; 12];
    stream.read_exact(&mut header).ok()?;
    let word = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let mut payload = vec![0; usize::try_from(word(8)?).ok()?];
    stream.read_exact(&mut payload).ok()?;
    Some(Message { request: word(0)?, payload })
}

/// Answers `request` with `payload`, as a backend of protocol version 1 would.
pub fn answer(stream: &mut UnixStream, request: u32, payload: &[u8]) {
    let reply_of_version_1: u32 = 0b101;
    let size = u32::try_from(payload.len()).expect("a small payload");
    let mut message = Vec::new();
    for word in [request, reply_of_version_1, size] {
        message.extend_from_slice(&word.to_le_bytes());
    }
    message.extend_from_slice(payload);
    // The front-end may have had enough of this peer.
    let _gone = stream.write_all(&message);
}
