//! The channel on which the device speaks to the front-end unasked: "the configuration changed".

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

/// Tells the front-end, and through it the driver, that the configuration space has changed.
///
/// A handle: clones say it for the same device, from any thread.
#[derive(Clone, Debug, Default)]
pub struct ConfigChange {
    channel: Arc<Mutex<Option<UnixStream>>>,
}

impl ConfigChange {
    /// Says so. Without a front-end that listens nothing needs to be said: it reads the space when
    /// it comes.
    pub fn announce(&self) {
        let _channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
    }
}
