//! A device without a back-end: what the user wants done about it meanwhile, looking for another
//! one, and taking that in.

use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::REPLY_DEADLINE;
use super::error::VhostUserError;
use super::life::Event;
use super::peer::Attempt;
use super::policy::OnDisconnect;
use super::process::{self, Process};
use super::report::{DeviceState, EventKind, PeerIdentity};
use super::session::Session;
use super::thread::DeviceThread;

/// Between two attempts to reach a back-end that was refused.
const AFTER_REFUSAL: Duration = Duration::from_secs(1);
/// A back-end that stays for less has not worked; the next attempt waits.
const WORKED: Duration = Duration::from_millis(20);
/// How long it waits: twice as long each time, up to a second.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The time without a back-end.
pub(super) struct Outage {
    /// Why it began, in a sentence.
    why: String,
    /// Which stage of the policy applies; none yet, while there is hope that none has to.
    stage: Option<usize>,
    /// When the next one does.
    until: Option<Instant>,
    paused: bool,
}

impl Outage {
    /// When something has to be done about it.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The stage from which on the policy is to be asked.
    pub(super) fn stage(&self) -> usize {
        self.stage.unwrap_or(0)
    }
}

impl DeviceThread {
    /// The back-end is gone, or can't be trusted any more, and the connection with it.
    pub(super) fn lose(&mut self, error: &VhostUserError) {
        let why = error.sentence();
        let from = self.life.state();
        let now = Instant::now();
        let worked = self.connected_at.is_some_and(|at| now.duration_since(at) >= WORKED);
        self.failures = if worked { 0 } else { self.failures.saturating_add(1) };
        // One that closed the connection itself, or died, has let go of the rings. Of another one
        // nothing is known; closing the connection is what tells it to.
        let process = self.process.take().filter(|_| !error.is_disconnect());
        if from == DeviceState::Active && !matches!(error, VhostUserError::LetGo) {
            self.shunned = process.or(self.shunned.take());
        }
        self.session = None;
        self.connected_at = None;
        self.peer.exit = self.source.autopsy();
        self.step(Event::PeerLost);
        if self.life.state() == DeviceState::Closed {
            return debug!("device {}: {why}", self.record.id);
        }
        self.retry_at = Some(now + self.wait());
        let exit = self.peer.exit.as_ref().map_or_else(String::new, |exit| format!(" ({exit})"));
        let text = format!("lost its back-end at {}{exit}: {why}", self.peer);
        {
            let mut notes = self.record.notes();
            notes.lost_since.get_or_insert(now);
            notes.last_error = Some(text.clone());
            notes.peer = self.peer.clone();
        }
        self.record.look_at_queues();
        let device_type = self.device_type.name();
        let told = format!(
            "device {} ({device_type}) {text}; it is looked for; the guest and its other devices go on",
            self.record.id
        );
        self.losses.tell(now, &told);
        // What it said of a ring is over with it.
        self.broken.drain();
        self.tell(EventKind::Lost, from, &text);
        if self.outage.is_none() {
            self.outage = Some(Outage { why: text, stage: None, until: None, paused: false });
            // A source that brings its back-ends back says itself when it can't any more.
            if !self.source.restarts() {
                self.apply_stage(0);
            }
        }
    }

    /// Gives the back-end up for another one that the user wants. The policy is for what happens
    /// unasked, so it has to wait.
    pub(super) fn let_go(&mut self) {
        self.outage.get_or_insert_with(|| Outage {
            why: "was told to attach to its back-end anew, and did not find it".to_owned(),
            stage: None,
            until: Instant::now().checked_add(REPLY_DEADLINE),
            paused: false,
        });
        self.lose(&VhostUserError::LetGo);
        self.failures = 0;
        self.retry_at = Some(Instant::now());
    }

    /// How long to wait before the next attempt.
    fn wait(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT),
        }
    }

    /// Lets the next stage of the policy apply when it is time to.
    pub(super) fn watch_policy(&mut self) {
        let Some(outage) = &self.outage else { return };
        if outage.until.is_some_and(|until| Instant::now() >= until) {
            let next = outage.stage.map_or(0, |stage| stage.saturating_add(1));
            self.apply_stage(next);
        }
    }

    fn apply_stage(&mut self, number: usize) {
        let Some(outage) = &mut self.outage else { return };
        let (action, time) = self.policy.stage(number).unwrap_or((OnDisconnect::Wait, None));
        outage.stage = Some(number);
        outage.until = time.and_then(|time| Instant::now().checked_add(time));
        let id = &self.record.id;
        let pause = action == OnDisconnect::Pause;
        match (pause, std::mem::replace(&mut outage.paused, pause)) {
            (true, false) => self.vmm.pause(id),
            (false, true) => self.vmm.resume(id),
            _ => {}
        }
        let what = match action {
            OnDisconnect::Wait => "the guest's requests wait",
            OnDisconnect::Pause => "the vCPUs are stopped",
            OnDisconnect::Reset => "the device needs a reset",
            OnDisconnect::Stop => "the machine ends",
        };
        let time = time.map_or_else(String::new, |time| format!(" for {} s", time.as_secs()));
        let text = format!("has no back-end: {what}{time} (on-disconnect={})", self.policy);
        let why = outage.why.clone();
        self.tell(EventKind::Policy, self.life.state(), &text);
        // That it waits at first is said with the loss, and what ends the machine says so itself.
        if number > 0 || matches!(action, OnDisconnect::Pause | OnDisconnect::Reset) {
            let device_type = self.device_type.name();
            self.losses
                .tell(Instant::now(), &format!("device {} ({device_type}) {text}", self.record.id));
        }
        match action {
            OnDisconnect::Wait | OnDisconnect::Pause => {}
            OnDisconnect::Reset => self.step(Event::GiveUp),
            OnDisconnect::Stop => self.stop_machine(&why),
        }
    }

    /// Ends the machine, as the user wants it.
    pub(super) fn stop_machine(&self, why: &str) {
        let Self { record, policy, .. } = self;
        let device_type = self.device_type.name();
        let why = format!("device {} ({device_type}) {why} (on-disconnect={policy})", record.id);
        self.vmm.stop(&record.id, &why);
    }

    /// Looks for a back-end when it is time to.
    pub(super) fn look_for_back_end(&mut self) {
        if self.retry_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        let id = self.record.id.clone();
        let found = self.source.connect(&id).and_then(|attempt| match attempt {
            Attempt::Connected(stream) => {
                let identity = self.identify(&stream);
                self.open(stream).map(|(session, config)| Some((session, config, identity)))
            }
            Attempt::NotYet { retry, why } => {
                debug!("device {id}: nobody at {}: {why}", self.source.name());
                self.retry_at = Some(Instant::now() + retry);
                Ok(None)
            }
            Attempt::GivenUp { why } => {
                self.retry_at = None;
                Err(VhostUserError::GivenUp(why))
            }
        });
        match found {
            Ok(Some((session, config, identity))) => match self.check_shunned(&identity) {
                Ok(()) => self.take_in(session, config, identity),
                Err(error) => self.refuse(error),
            },
            Ok(None) => {}
            Err(error) => self.refuse(error),
        }
    }

    /// Greets who is at the other end, and sees whether it can take the place of the one that was
    /// there. Answers with its configuration space.
    pub(super) fn open(
        &self,
        stream: std::os::unix::net::UnixStream,
    ) -> Result<(Session, Vec<u8>), VhostUserError> {
        let (session, found) = Session::open(&self.record.id, stream, self.device_type)?;
        self.offer.check_return(&found)?;
        Ok((session, found.config.unwrap_or_default()))
    }

    pub(super) fn identify(&self, stream: &std::os::unix::net::UnixStream) -> PeerIdentity {
        process::identify(&*self.source, stream)
    }

    /// Refuses a back-end while another process may still work on the same rings.
    pub(super) fn check_shunned(&mut self, identity: &PeerIdentity) -> Result<(), VhostUserError> {
        let other = self.shunned.as_ref().filter(|shunned| shunned.is_not(identity));
        if let Some(other) = other.filter(|other| other.lives()) {
            return Err(VhostUserError::NotGone(other.pid()));
        }
        self.shunned = None;
        Ok(())
    }

    /// No back-end, or none that fits.
    fn refuse(&mut self, error: VhostUserError) {
        let name = self.source.name();
        let why = error.sentence();
        let given_up = matches!(error, VhostUserError::GivenUp(_));
        if given_up {
            // Nobody will come of itself, so the policy need not wait any longer.
            let unapplied = self.outage.as_ref().is_some_and(|outage| outage.stage.is_none());
            let text = format!("has no back-end any more: {why}");
            if let Some(outage) = &mut self.outage {
                outage.why = text;
            }
            if unapplied {
                self.apply_stage(0);
            }
        } else if error.is_disconnect() {
            // It died once more, or somebody else did in its place.
            self.failures = self.failures.saturating_add(1);
            self.retry_at = Some(Instant::now() + self.wait());
        } else {
            self.retry_at = Some(Instant::now() + AFTER_REFUSAL);
        }
        let text = format!("did not take the back-end at {name}: {why}");
        // It may be met again and again.
        if self.refused.as_ref() == Some(&text) {
            debug!("device {}: {text}", self.record.id);
        } else {
            warn!("device {} ({}) {text}", self.record.id, self.device_type.name());
            self.record.notes().last_error = Some(text.clone());
            self.tell(EventKind::Refused, self.life.state(), &text);
            self.refused = Some(text);
        }
        self.answer_reattach(Err(error));
    }

    /// Takes in a back-end that fits.
    pub(super) fn take_in(&mut self, session: Session, config: Vec<u8>, identity: PeerIdentity) {
        let from = self.life.state();
        self.retry_at = None;
        self.connected_at = Some(Instant::now());
        self.process = Process::of(&identity);
        self.peer = identity;
        {
            let mut notes = self.record.notes();
            notes.peer = self.peer.clone();
            notes.protocol = session.protocol;
        }
        self.session = Some(session);
        self.tell(EventKind::Connected, from, &format!("is connected to {}", self.peer));
        // The driver's writes were to the device, not to the process that is gone.
        let written = self.mailbox.written_since_reset();
        if written.is_empty() {
            self.take_config(config, true);
        } else {
            self.write_config(&written, true);
        }
        if self.session.is_none() {
            return;
        }
        self.step(Event::PeerReady);
        if self.session.is_none() {
            return;
        }
        self.end_outage();
        self.refused = None;
        {
            let mut notes = self.record.notes();
            notes.recoveries = notes.recoveries.saturating_add(1);
        }
        let text = match self.life.state() {
            DeviceState::Active => format!("goes on with the back-end at {}", self.peer),
            _ => format!("has a back-end again, at {}", self.peer),
        };
        let told = format!("device {} ({}) {text}", self.record.id, self.device_type.name());
        self.returns.tell(Instant::now(), &told);
        self.tell(EventKind::Recovered, from, &text);
        self.answer_reattach(Ok(()));
    }

    /// There is a back-end again.
    fn end_outage(&mut self) {
        self.record.notes().lost_since = None;
        if let Some(outage) = self.outage.take()
            && outage.paused
        {
            self.vmm.resume(&self.record.id);
        }
    }

    fn answer_reattach(&mut self, outcome: Result<(), VhostUserError>) {
        if let Some(waiting) = self.reattaching.take() {
            // Whoever asked may have gone.
            let _gone = waiting.send(outcome);
        }
    }
}

#[cfg(test)]
#[path = "outage_test.rs"]
mod tests;
