//! A backend of ours as the front-end's source of connections: each is a new process on a new
//! socket pair, started when the one before it has ended.
//!
//! How soon and how often is for [`Restarts`] to say.

use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::process::Cause;
use super::restarts::{Next, Restarts};
use super::{Child, ChildError, Program, Starter};
use crate::control_line::ControlLine;
use crate::vhost_user::{Attempt, PeerSource, VhostUserError};

/// How long a backend whose connection has gone may take to end by itself.
const LEAVING: Duration = Duration::from_millis(500);
/// How long it may take then after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(2);
/// How long a dying process may take from closing its socket to being reaped.
const DYING: Duration = Duration::from_millis(50);

/// The process of a device, for those who want to see it ended: shared with its [`Supervisor`].
#[derive(Clone, Debug, Default)]
pub struct Seat(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    occupant: Mutex<Occupant>,
    /// Held while the process is seen off, which may take long. Before the other, if both.
    clearing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Occupant {
    child: Option<Child>,
    /// How the one before ended.
    last: Option<(&'static str, ExitStatus)>,
    /// Whether one has ended because the user at its terminal left, and nobody was told yet.
    left: bool,
}

impl Seat {
    fn lock(&self) -> MutexGuard<'_, Occupant> {
        self.0.occupant.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clearing(&self) -> MutexGuard<'_, ()> {
        self.0.clearing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees its process ended, whose connection has gone: by itself, else by SIGTERM, else at once.
    pub fn clear(&self) {
        // Whoever else wants it ended has to wait as well.
        let _clearing = self.clearing();
        let Some(mut child) = self.lock().child.take() else { return };
        match child.ended(LEAVING) {
            Some(status) => self.lock().last = Some((child.program(), status)),
            None => child.stop(PATIENCE),
        }
    }

    /// Looks whether its process has ended, so that it is known when.
    pub fn look(&self) {
        let mut occupant = self.lock();
        let left = occupant.child.as_mut().is_some_and(|child| {
            let _runs_on = child.ended(Duration::ZERO);
            child.has_user_left()
        });
        occupant.left |= left;
    }

    /// Whether its process, as it was looked at last, has ended because the user at our terminal left.
    /// True once for each.
    pub fn user_left(&self) -> bool {
        std::mem::take(&mut self.lock().left)
    }

    /// How its process ended, if it does within `patience`: the program and its status.
    pub fn ended(&self, patience: Duration) -> Option<(&'static str, ExitStatus)> {
        let _cleared = self.clearing();
        let mut occupant = self.lock();
        match occupant.child.as_mut() {
            Some(child) => child.ended(patience).map(|status| (child.program(), status)),
            None => occupant.last,
        }
    }
}

/// Starts the backend of one device, again and again. Dropping it ends the process.
#[derive(Debug)]
pub struct Supervisor {
    program: Program,
    starter: Starter,
    seat: Seat,
    /// To the process that there is.
    line: Arc<ControlLine>,
    restarts: Restarts,
    /// The first connection, until it is asked for.
    ready: Option<UnixStream>,
    /// When the process that is no more connected will be killed.
    kill_at: Option<Instant>,
    /// How the last process ended.
    cause: Option<String>,
}

impl Supervisor {
    /// Starts the backend of device `id`, at the other end of `line`.
    ///
    /// # Errors
    /// [`ChildError`] when it can't be started this first time: then it never will.
    pub fn start(
        program: Program,
        starter: Starter,
        id: &str,
        line: Arc<ControlLine>,
    ) -> Result<Self, ChildError> {
        let mut supervisor = Self {
            program,
            starter,
            seat: Seat::default(),
            line,
            restarts: Restarts::new(),
            ready: None,
            kill_at: None,
            cause: None,
        };
        supervisor.ready = Some(supervisor.launch(id)?);
        Ok(supervisor)
    }

    /// Where its process sits.
    #[must_use]
    pub fn seat(&self) -> Seat {
        self.seat.clone()
    }

    /// Sees to it that nothing of the last process is left. Two at once would work on the same
    /// rings, so its end is waited for however long it takes; says who is not yet gone.
    fn see_off(&mut self, id: &str) -> Result<(), String> {
        let mut occupant = self.seat.lock();
        let Some(child) = occupant.child.as_mut() else { return Ok(()) };
        let now = Instant::now();
        let Some(status) = child.ended(Duration::ZERO) else {
            // It has no other connection to wait for, and ends by itself unless it hangs.
            let kill_at = *self.kill_at.get_or_insert(now + LEAVING);
            if now >= kill_at {
                child.kill();
            }
            return Err(format!("{} (pid {}) has not ended yet", child.program(), child.pid()));
        };
        let (program, cause) = (child.program(), Cause(status).to_string());
        let age = child.age();
        self.restarts.died(age, now);
        let lived = age.as_millis();
        tracing::info!(
            "device {id}: {program} (pid {}) {} after {lived} ms",
            child.pid(),
            happened(&cause)
        );
        self.cause = Some(cause);
        self.kill_at = None;
        // Whoever looks next is told of it.
        let left = child.has_user_left() || occupant.left;
        *occupant = Occupant { child: None, last: Some((program, status)), left };
        Ok(())
    }

    fn launch(&self, id: &str) -> Result<UnixStream, ChildError> {
        let (child, ends) = self.starter.start(&self.program, self.line.hang_up())?;
        tracing::info!("device {id}: started {} (pid {})", child.program(), child.pid());
        if let Err(error) = self.line.connect(ends.control) {
            tracing::warn!("device {id}: {} can't be asked: {error}", child.program());
        }
        self.seat.lock().child = Some(child);
        // The kernel may have told of its end before it was there to be looked at.
        self.seat.look();
        Ok(ends.device)
    }

    /// Why there is no process.
    fn why(&self) -> String {
        let cause = self.cause.as_deref().map_or_else(|| "is not there".to_owned(), happened);
        format!("{} {cause}", self.program.name)
    }
}

impl PeerSource for Supervisor {
    fn name(&self) -> String {
        format!("its own {}", self.program.name)
    }

    fn connect(&mut self, id: &str) -> Result<Attempt, VhostUserError> {
        if let Some(stream) = self.ready.take() {
            return Ok(Attempt::Connected(stream));
        }
        if let Err(why) = self.see_off(id) {
            return Ok(Attempt::NotYet { retry: LOOK, why });
        }
        let error = match self.restarts.next(Instant::now()) {
            Next::Wait(retry) => return Ok(Attempt::NotYet { retry, why: self.why() }),
            Next::GiveUp => {
                let starts = self.restarts.failed_starts();
                let why = format!("{}, as at {starts} starts in a row", self.why());
                // Whoever asks once more wants it tried once more.
                self.restarts = Restarts::new();
                return Ok(Attempt::GivenUp { why });
            }
            Next::Start => match self.launch(id) {
                Ok(stream) => return Ok(Attempt::Connected(stream)),
                Err(error) => error,
            },
        };
        let source = std::error::Error::source(&error);
        let why = source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        // What could be started once can be again when there is memory, or the program is back.
        self.restarts.died(Duration::ZERO, Instant::now());
        Ok(Attempt::NotYet { retry: LOOK, why })
    }

    fn pid(&self) -> Option<u32> {
        self.seat.lock().child.as_ref().map(Child::pid)
    }

    fn restarts(&self) -> bool {
        true
    }

    fn autopsy(&mut self) -> Option<String> {
        let mut occupant = self.seat.lock();
        match occupant.child.as_mut() {
            Some(child) => child.ended(DYING).map(|status| Cause(status).to_string()),
            None => self.cause.clone(),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Not on this thread, which may have a device to serve; without another there is no choice.
        let seat = self.seat.clone();
        let farewell = thread::Builder::new().name("farewell".to_owned());
        if farewell.spawn(move || seat.clear()).is_err() {
            self.seat.clear();
        }
    }
}

/// The cause as what happened to somebody.
fn happened(cause: &str) -> String {
    if cause.starts_with("killed") { format!("was {cause}") } else { cause.to_owned() }
}

#[cfg(test)]
#[path = "supervisor_test.rs"]
mod tests;
