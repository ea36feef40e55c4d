//! A deadline for exchanges: `vhost` waits for an answer for ever, whatever the socket's timeout.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// Cuts a connection when an exchange over it takes too long.
#[derive(Debug)]
pub(crate) struct Watchdog(Sender<()>);

impl Watchdog {
    /// Watches over `stream`.
    pub(crate) fn new(stream: UnixStream, timeout: Duration) -> Self {
        let (sender, steps) = channel();
        thread::spawn(move || watch(&steps, &stream, timeout));
        Self(sender)
    }

    /// Runs `exchange`, which ends with an error when the connection is cut.
    pub(crate) fn limit<T>(&self, exchange: impl FnOnce() -> T) -> T {
        // Nobody listens any more once the connection was cut.
        let _begun = self.0.send(());
        let result = exchange();
        let _ended = self.0.send(());
        result
    }
}

/// Every step is a beginning or an end, in turn.
fn watch(steps: &Receiver<()>, stream: &UnixStream, timeout: Duration) {
    while steps.recv().is_ok() {
        if let Err(RecvTimeoutError::Timeout) = steps.recv_timeout(timeout) {
            let _gone_already = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}
