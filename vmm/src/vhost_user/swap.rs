//! Moving a device from one back-end to another that the user names, with the guest running.

use tracing::{info, warn};

use super::error::VhostUserError;
use super::mailbox::Outcome;
use super::peer::{Attempt, PeerSource};
use super::process::{self, Process};
use super::replay::Unproven;
use super::report::{DeviceState, EventKind, PeerIdentity};
use super::session::Session;
use super::thread::DeviceThread;

/// A back-end that could take over.
struct Candidate {
    source: Box<dyn PeerSource>,
    session: Session,
    config: Vec<u8>,
    identity: PeerIdentity,
}

impl DeviceThread {
    /// Moves the device to the back-end that `source` has now, or leaves it where it is.
    pub(super) fn swap(&mut self, source: Box<dyn PeerSource>) -> Outcome {
        let from = self.life.state();
        let name = source.name();
        let outcome = self.find(source).and_then(|candidate| self.move_to(candidate));
        let id = &self.record.id;
        match &outcome {
            Ok(()) => {
                info!("device {id} has moved to {name}");
                self.tell(EventKind::Swapped, from, &format!("has moved to {}", self.peer));
            }
            Err(error) => {
                let text = format!("did not move to {name}: {}", error.sentence());
                warn!("device {id} {text}");
                self.record.notes().last_error = Some(text.clone());
                self.tell(EventKind::SwapFailed, from, &text);
            }
        }
        outcome
    }

    /// Greets the other back-end while the present one still works.
    fn find(&self, mut source: Box<dyn PeerSource>) -> Result<Candidate, VhostUserError> {
        let stream = match source.connect(&self.record.id)? {
            Attempt::Connected(stream) => stream,
            Attempt::NotYet { why, .. } | Attempt::GivenUp { why } => {
                return Err(VhostUserError::SwapFailed(format!("nobody is there: {why}")));
            }
        };
        let identity = process::identify(&*source, &stream);
        let (session, config) = self.open(stream)?;
        Ok(Candidate { source, session, config, identity })
    }

    fn move_to(&mut self, mut candidate: Candidate) -> Outcome {
        let rings = self.activation.clone().filter(|_| self.life.state() == DeviceState::Active);
        let (Some(activation), Some(old)) = (rings, &mut self.session) else {
            return self.adopt(candidate);
        };
        let bases = match old.stop(&activation.rings) {
            Ok(bases) => bases,
            // It won't let go, so this is a loss, and the other one's turn.
            Err(error) => {
                self.source = candidate.source;
                self.lose(&error);
                return self.come_in(candidate.session, candidate.config, candidate.identity);
            }
        };
        let started = self
            .bases(&activation, candidate.session.tracks_inflight())
            .map_err(|(queue, unproven)| unfinished(queue, &unproven))
            .and_then(|bases| self.hand_over_to(&mut candidate.session, &activation, &bases));
        if let Err(error) = started {
            self.roll_back(candidate.session, &activation, &bases);
            return Err(error);
        }
        self.call_guest();
        self.become_of(candidate);
        Ok(())
    }

    /// Back to the back-end that gave the rings back, where it left off, or where the other one got
    /// to.
    fn roll_back(
        &mut self,
        mut failed: Session,
        activation: &crate::virtio::Activation,
        bases: &[u16],
    ) {
        // It may have begun. If it is past answering, closing its connection has to do.
        let _given_up = failed.stop(&activation.rings);
        drop(failed);
        // What it said of its rings is of no matter where they go on.
        self.broken.drain();
        let Some(mut old) = self.session.take() else { return };
        let bases = self.bases(activation, old.tracks_inflight()).unwrap_or(bases.to_vec());
        let back = self.hand_over_to(&mut old, activation, &bases);
        self.session = Some(old);
        match back {
            Ok(()) => self.call_guest(),
            Err(error) => self.lose(&error),
        }
    }

    /// Takes the candidate where there are no rings to be moved.
    fn adopt(&mut self, candidate: Candidate) -> Outcome {
        match self.session {
            Some(_) => {
                self.become_of(candidate);
                Ok(())
            }
            None => {
                self.source = candidate.source;
                self.come_in(candidate.session, candidate.config, candidate.identity)
            }
        }
    }

    fn come_in(&mut self, session: Session, config: Vec<u8>, identity: PeerIdentity) -> Outcome {
        self.check_shunned(&identity)?;
        self.take_in(session, config, identity);
        match self.session {
            Some(_) => Ok(()),
            None => Err(VhostUserError::SwapFailed("it was lost at once".to_owned())),
        }
    }

    /// From now on the candidate is the back-end. The old one sees its connection closed, and ends
    /// if it is ours.
    fn become_of(&mut self, candidate: Candidate) {
        let Candidate { source, session, config, identity } = candidate;
        self.session = Some(session);
        self.source = source;
        self.process = Process::of(&identity);
        self.peer = identity;
        self.connected_at = Some(std::time::Instant::now());
        {
            let mut notes = self.record.notes();
            notes.peer = self.peer.clone();
            notes.protocol = self.session.as_ref().map_or(notes.protocol, |new| new.protocol);
        }
        let written = self.mailbox.written_since_reset();
        if written.is_empty() {
            self.take_config(config, true);
        } else {
            self.write_config(&written, true);
        }
    }

    /// Drops the connection and looks for a back-end at once.
    pub(super) fn reattach(&mut self, outcome: std::sync::mpsc::Sender<Outcome>) {
        self.reattaching = Some(outcome);
        if self.life.state() == DeviceState::Active
            && let (Some(session), Some(activation)) = (&mut self.session, &self.activation)
        {
            // So that it leaves nothing undone. If it won't, this is as if it had died.
            let _hung = session.stop(&activation.rings);
        }
        if self.session.is_some() {
            self.let_go();
        } else {
            self.failures = 0;
            self.retry_at = Some(std::time::Instant::now());
        }
        self.look_for_back_end();
    }
}

fn unfinished(queue: u16, unproven: &Unproven) -> VhostUserError {
    VhostUserError::SwapFailed(format!(
        "the back-end before it gave queue {queue} back unfinished, and left no record: {unproven}"
    ))
}

#[cfg(test)]
#[path = "swap_test.rs"]
mod tests;
