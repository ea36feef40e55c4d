//! The control queue (virtio 1.3 §5.1.6.5): a message a chain, answered in the first byte of its
//! room. What a message says is the command's business, what comes of it the control's.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use atoll_backend::{Reader, Vring, VringError, Wait, Worker};
use virtio_bindings::virtio_net::{VIRTIO_NET_ERR, VIRTIO_NET_OK};

use crate::command::{Command, MAX_MESSAGE, NotCommand};
use crate::control::{Control, NotDone};
use crate::offload::Features;

/// The least time between two changes that reach the host: a guest can't keep the others' networks
/// waiting with them.
const PAUSE: Duration = Duration::from_millis(10);

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
    /// When the last change reached the host.
    changed: Option<Instant>,
}

/// What comes of a message.
enum Outcome {
    Done(Result<(), Refused>),
    /// It is too early for it.
    Later(Duration),
}

impl ControlQueue {
    pub(crate) fn new(control: Arc<Control>, features: Features) -> Self {
        Self { control, features, begun: false, refused: false, changed: None }
    }

    fn obey(&mut self, message: Reader<'_>) -> Outcome {
        let command = match self.read(message) {
            Ok(command) => command,
            Err(not) => return Outcome::Done(Err(not.into())),
        };
        if command.reaches_host() {
            let since = self.changed.map_or(PAUSE, |changed| changed.elapsed());
            let left = PAUSE.saturating_sub(since);
            if !left.is_zero() {
                return Outcome::Later(left);
            }
            self.changed = Some(Instant::now());
        }
        tracing::debug!(?command, "the driver asks");
        Outcome::Done(self.control.carry_out(command).map_err(Refused::from))
    }

    fn read(&self, mut reader: Reader<'_>) -> Result<Command, NotCommand> {
        let len = reader.len();
        if len > MAX_MESSAGE {
            return Err(NotCommand::Length { len });
        }
        let mut message = vec![0; len];
        reader.copy_to(&mut message);
        Command::parse(&message, self.features)
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
                Ok((message, mut room)) if !room.is_empty() => match self.obey(message) {
                    Outcome::Done(done) => {
                        let code = if done.is_ok() { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
                        done.err().iter().for_each(|reason| self.refuse(reason));
                        room.copy_from(&[code as u8])
                    }
                    Outcome::Later(left) => {
                        vring.give_back(chain)?;
                        return Ok(Wait::no_kick().within(left));
                    }
                },
                // Without room for the answer nothing is done: nobody could know that it was.
                _ => 0,
            };
            vring.complete(chain, answered as u32)?;
        }
        Ok(Wait::kick())
    }
}
