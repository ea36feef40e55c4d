//! What the guest and the VMM want of a device, left for its thread to pick up.
//!
//! Writers never wait. Whatever a guest writes, the mailbox holds at most one start, one reset and
//! one value for each byte of configuration space. Commands come from users who wait for them.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::error::VhostUserError;
use super::peer::PeerSource;
use crate::irq::Event;
use crate::virtio::{Activation, DeviceEvents};

#[derive(Default)]
struct Contents {
    /// A reset comes before the start that lies here with it.
    reset: bool,
    start: Option<Activation>,
    close: bool,
    /// Configuration space as the driver shall see it.
    config: Vec<u8>,
    /// Bytes of it that the driver wrote and the back-end has not seen.
    written: Vec<Option<u8>>,
    /// All that it wrote since the device was last reset, for a back-end that comes later.
    kept: Vec<Option<u8>>,
    commands: Vec<Command>,
    events: Option<Weak<dyn DeviceEvents>>,
    resets_asked: u64,
    resets_done: u64,
}

/// What a user wants of a device, with where the outcome goes.
pub(super) enum Command {
    /// Another back-end.
    Swap(Box<dyn PeerSource>, Sender<Outcome>),
    /// The back-end anew.
    Reattach(Sender<Outcome>),
}

/// What came of a command.
pub(super) type Outcome = Result<(), VhostUserError>;

/// What was found in the mailbox.
pub(super) struct Orders {
    pub(super) reset: bool,
    pub(super) start: Option<Activation>,
    pub(super) close: bool,
    /// Runs of bytes to write to configuration space: offset and bytes.
    pub(super) config: Vec<(usize, Vec<u8>)>,
    pub(super) commands: Vec<Command>,
}

/// The mailbox of one device.
pub(super) struct Mailbox {
    contents: Mutex<Contents>,
    /// Signalled when something was put in.
    wake: Event,
    /// Notified when a reset is done.
    settled: Condvar,
}

impl Mailbox {
    pub(super) fn new(wake: Event, config: Vec<u8>) -> Self {
        let written = vec![None; config.len()];
        Self {
            contents: Mutex::new(Contents {
                config,
                kept: written.clone(),
                written,
                ..Contents::default()
            }),
            wake,
            settled: Condvar::new(),
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the thread sleeps on.
    pub(super) fn wake(&self) -> &Event {
        &self.wake
    }

    pub(super) fn start(&self, activation: Activation) {
        self.contents().start = Some(activation);
        self.wake.signal();
    }

    pub(super) fn reset(&self) {
        self.ask_reset();
    }

    fn ask_reset(&self) -> u64 {
        let mut contents = self.contents();
        contents.start = None;
        contents.reset = true;
        contents.kept.fill(None);
        contents.resets_asked = contents.resets_asked.wrapping_add(1);
        self.wake.signal();
        contents.resets_asked
    }

    /// Resets and waits until it is done; false if that takes longer than `patience`.
    pub(super) fn reset_and_wait(&self, patience: Duration) -> bool {
        let ticket = self.ask_reset();
        let contents = self.contents();
        self.settled
            .wait_timeout_while(contents, patience, |contents| contents.resets_done < ticket)
            .map_or_else(|poisoned| !poisoned.into_inner().1.timed_out(), |(_, w)| !w.timed_out())
    }

    pub(super) fn close(&self) {
        self.contents().close = true;
        self.wake.signal();
    }

    pub(super) fn write_config(&self, offset: usize, data: &[u8]) {
        let mut contents = self.contents();
        let Contents { config, written, kept, .. } = &mut *contents;
        let bytes = config.iter_mut().zip(written.iter_mut().zip(kept)).skip(offset);
        for ((byte, (written, kept)), &new) in bytes.zip(data) {
            *byte = new;
            *written = Some(new);
            *kept = Some(new);
        }
        self.wake.signal();
    }

    pub(super) fn config(&self) -> Vec<u8> {
        self.contents().config.clone()
    }

    /// Takes what the back-end says of configuration space, and answers what the driver shall see:
    /// that, with what the driver wrote meanwhile.
    pub(super) fn set_config(&self, config: Vec<u8>) -> Vec<u8> {
        let mut contents = self.contents();
        let Contents { config: seen, written, .. } = &mut *contents;
        *seen = config;
        written.resize(seen.len(), None);
        for (byte, written) in seen.iter_mut().zip(written) {
            *byte = written.unwrap_or(*byte);
        }
        seen.clone()
    }

    pub(super) fn attach(&self, events: Weak<dyn DeviceEvents>) {
        self.contents().events = Some(events);
    }

    pub(super) fn events(&self) -> Option<Arc<dyn DeviceEvents>> {
        self.contents().events.as_ref().and_then(Weak::upgrade)
    }

    /// Empties the mailbox.
    pub(super) fn take(&self) -> Orders {
        self.wake.drain();
        let mut contents = self.contents();
        Orders {
            reset: std::mem::take(&mut contents.reset),
            start: contents.start.take(),
            close: contents.close,
            config: runs(&mut contents.written),
            commands: std::mem::take(&mut contents.commands),
        }
    }

    /// What the driver wrote to configuration space since the last reset, as a back-end that comes
    /// later has to have it.
    pub(super) fn written_since_reset(&self) -> Vec<(usize, Vec<u8>)> {
        let mut contents = self.contents();
        contents.written.fill(None);
        runs(&mut contents.kept.clone())
    }

    /// Leaves a command for the thread. Once that ends, the command is dropped, which is how who
    /// waits learns of it.
    pub(super) fn command(&self, command: Command) {
        let mut contents = self.contents();
        if !contents.close {
            contents.commands.push(command);
            self.wake.signal();
        }
    }

    /// All resets that were asked for before the last [`Mailbox::take`] are done, unless one more
    /// was asked for since.
    pub(super) fn reset_done(&self) {
        let mut contents = self.contents();
        if !contents.reset {
            contents.resets_done = contents.resets_asked;
            self.settled.notify_all();
        }
    }
}

/// Takes the written bytes out, neighbours together.
fn runs(written: &mut [Option<u8>]) -> Vec<(usize, Vec<u8>)> {
    let mut runs: Vec<(usize, Vec<u8>)> = Vec::new();
    for (offset, byte) in written.iter_mut().enumerate() {
        let Some(byte) = byte.take() else { continue };
        match runs.last_mut() {
            Some((start, run)) if start.saturating_add(run.len()) == offset => run.push(byte),
            _ => runs.push((offset, vec![byte])),
        }
    }
    runs
}

#[cfg(test)]
#[path = "mailbox_test.rs"]
mod tests;
