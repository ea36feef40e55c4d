//! The thread that starts every backend.
//!
//! The kernel ends a child when the *thread* that forked it ends (prctl(2), PR_SET_PDEATHSIG), so
//! none but a thread that lives as long as the process may start one, whoever asks for it.

use std::ffi::OsString;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::{io, thread};

use super::{Child, ChildError, Ends, Program};

type Started = Result<(Child, Ends), ChildError>;

/// Starts backends, for whichever thread asks. When the last is dropped, so die the children.
#[derive(Clone, Debug)]
pub struct Starter(Sender<Box<dyn FnOnce() + Send>>);

impl Starter {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn new() -> io::Result<Self> {
        let (sender, orders) = channel::<Box<dyn FnOnce() + Send>>();
        thread::Builder::new().name("children".to_owned()).spawn(move || {
            for order in orders {
                order();
            }
        })?;
        Ok(Self(sender))
    }

    /// Starts `program` with `more` arguments, and returns it with our ends of its sockets. Takes
    /// as long as fork and exec.
    ///
    /// # Errors
    /// [`ChildError`].
    pub fn start(&self, program: &Program, more: Vec<OsString>) -> Started {
        let (answer, started) = sync_channel(1);
        let program = program.clone();
        let order = Box::new(move || {
            // Whoever asked waits for it; if not, the child ends with this drop.
            let _nobody_waits = answer.send(Child::spawn(&program, &more));
        });
        self.0.send(order).map_err(|_ended| ChildError::NoStarter)?;
        started.recv().map_err(|_ended| ChildError::NoStarter)?
    }
}

#[cfg(test)]
#[path = "starter_test.rs"]
mod tests;
