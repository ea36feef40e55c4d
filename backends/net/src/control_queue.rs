//! The control queue (virtio 1.3 §5.1.6.5): a message a chain, answered in the first byte of its
//! room. What a message says is the command's business, what comes of it the control's.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::sync::Arc;

use atoll_backend::{Reader, Vring, VringError, Wait, Worker};
use virtio_bindings::virtio_net::{VIRTIO_NET_ERR, VIRTIO_NET_OK};

use crate::command::{Command, MAX_MESSAGE, NotCommand};
use crate::control::{Control, NotDone};
use crate::offload::Features;

/// A message is not heeded.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    NotCommand(#[from] NotCommand),
    #[error(transparent)]
    NotDone(#[from] NotDone),
}

/// The worker of the control queue.
pub(crate) struct ControlQueue {
    control: Arc<Control>,
    features: Features,
    begun: bool,
    refused: bool,
}

impl ControlQueue {
    pub(crate) fn new(control: Arc<Control>, features: Features) -> Self {
        Self { control, features, begun: false, refused: false }
    }

    fn obey(&self, mut reader: Reader<'_>) -> Result<(), Refused> {
        let len = reader.len();
        if len > MAX_MESSAGE {
            return Err(NotCommand::Length { len }.into());
        }
        let mut message = vec![0; len];
        reader.copy_to(&mut message);
        let command = Command::parse(&message, self.features)?;
        tracing::debug!(?command, "the driver asks");
        self.control.carry_out(command)?;
        Ok(())
    }

    fn refuse(&mut self, reason: &Refused) {
        let reason = reason as &dyn std::error::Error;
        if std::mem::replace(&mut self.refused, true) {
            tracing::debug!(error = reason, "refusing what the driver asks for");
        } else {
            tracing::warn!(error = reason, "refusing what the driver asks for");
        }
    }
}

impl Worker for ControlQueue {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        if !std::mem::replace(&mut self.begun, true) {
            self.control.begin(self.features, vring.has_used());
        }
        while let Some(chain) = vring.next()? {
            let answered = match chain.buffers() {
                Ok((message, mut room)) if !room.is_empty() => {
                    let done = self.obey(message);
                    let code = if done.is_ok() { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
                    done.err().iter().for_each(|reason| self.refuse(reason));
                    room.copy_from(&[code as u8])
                }
                // Without room for the answer nothing is done: nobody could know that it was.
                _ => 0,
            };
            vring.complete(chain, answered as u32)?;
        }
        Ok(Wait::kick())
    }
}
