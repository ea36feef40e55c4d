//! Keys for the guest: from the pipe straight into the buffers that the driver made available.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use atoll_backend::{Vring, VringError, Wait, Worker};
use nix::poll::PollFlags;

use crate::ports::Gate;

/// The worker of the receive queue.
pub(crate) struct Receive {
    keys: Arc<OwnedFd>,
    /// Of a port that a program in the guest opens and closes: Linux drops what comes while it is
    /// closed.
    gate: Option<Gate>,
}

impl Receive {
    pub(crate) fn new(keys: Arc<OwnedFd>, gate: Option<Gate>) -> Self {
        Self { keys, gate }
    }
}

impl Worker for Receive {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        while let Some(chain) = vring.next()? {
            if let Some(opens) = self.gate.as_ref().and_then(Gate::closed) {
                vring.give_back(chain)?;
                return Ok(Wait::no_kick().on(opens, PollFlags::POLLIN));
            }
            let read = match chain.writer() {
                Ok(mut room) if !room.is_empty() => room.read_from(self.keys.as_fd()),
                // Broken, or of no use: the driver gets it back unused.
                _ => Ok(0),
            };
            match read {
                // A pipe holds less than 4 GiB.
                Ok(count) => vring.complete(chain, count as u32)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    vring.give_back(chain)?;
                    return Ok(Wait::no_kick().on(self.keys.as_fd(), PollFlags::POLLIN));
                }
                Err(error) => return Err(VringError::Device(error.into())),
            }
        }
        // No buffer: the keys wait in the pipe, and behind it whoever types them.
        Ok(Wait::kick())
    }
}
