//! The two control queues (virtio 1.3 §5.3.2): messages of the driver in, messages for it out.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use atoll_backend::{Vring, VringError, Wait, Worker};
use nix::poll::PollFlags;

use crate::control::HEADER;
use crate::ports::Ports;

/// The worker of the queue on which the driver speaks.
pub(crate) struct ControlTransmit {
    ports: Ports,
    /// Whether the queue was looked at for what another process has left.
    looked: bool,
}

impl ControlTransmit {
    pub(crate) fn new(ports: Ports) -> Self {
        Self { ports, looked: false }
    }
}

impl Worker for ControlTransmit {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        if !std::mem::replace(&mut self.looked, true) && vring.has_used() {
            self.ports.resume();
        }
        while let Some(chain) = vring.next()? {
            let mut message = [0; HEADER];
            let whole = chain.reader().is_ok_and(|mut bytes| bytes.copy_to(&mut message) == HEADER);
            if !whole || !self.ports.take(message) {
                tracing::debug!("a control message that makes no sense: {message:x?}");
            }
            vring.complete(chain, 0)?;
        }
        Ok(Wait::kick())
    }
}

/// The worker of the queue on which the device speaks.
pub(crate) struct ControlReceive(pub(crate) Ports);

impl Worker for ControlReceive {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        while let Some(chain) = vring.next()? {
            let Some(message) = self.0.next() else {
                vring.give_back(chain)?;
                return Ok(Wait::no_kick().on(self.0.due(), PollFlags::POLLIN));
            };
            let written = match chain.writer() {
                Ok(mut room) if room.len() >= message.len() => room.copy_from(&message),
                // The driver hears nothing on a buffer of no use.
                _ => 0,
            };
            // A message is shorter than a port's name may be.
            vring.complete(chain, written as u32)?;
        }
        // No buffer: what is due waits.
        Ok(Wait::kick())
    }
}
