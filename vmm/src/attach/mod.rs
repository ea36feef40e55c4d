//! `atoll console`: this terminal on a running guest's console, until its user leaves or the guest ends.
//! What a console's process does is not known here; what its socket takes is in `docs/guide.md`.

mod link;
mod place;
mod session;
mod user;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use crate::cli::Console;
use crate::ctl::CtlError;
use place::Place;
use session::{End, Session};
use user::User;

/// Between two looks for a console that was lost.
const LOOK: Duration = Duration::from_millis(100);

/// Why a terminal can't be connected to a console.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No machine was named.
    #[error(
        "no machine is named; give its control socket, here or in ATOLL_CONTROL, or a console's own \
         socket or pseudo-terminal with --attach=PATH"
    )]
    NoMachine,
    /// A name that no machine has.
    #[error("there is no machine `{name}`: nothing is at {name}, nor at {unit}")]
    NoSuchMachine {
        /// As given.
        name: String,
        /// Where the control socket of a unit with that name would be.
        unit: PathBuf,
    },
    /// The machine can't be asked.
    #[error(transparent)]
    Ctl(#[from] CtlError),
    /// The machine's answer is not what an answer is.
    #[error("the machine at {machine} does not say which consoles it has")]
    Answer {
        /// Its control socket.
        machine: PathBuf,
        /// What is wrong with the answer.
        source: serde_json::Error,
    },
    /// No console that the machine knows.
    #[error(
        "the machine at {machine} has started no console; if somebody else serves one, name its \
         socket or pseudo-terminal with --attach=PATH"
    )]
    NoConsole {
        /// Its control socket.
        machine: PathBuf,
    },
    /// Not the one that was asked for.
    #[error("the machine at {machine} has no {wanted}; it has {has}")]
    NoSuchConsole {
        /// Its control socket.
        machine: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What there is.
        has: String,
    },
    /// One that nobody can attach to.
    #[error("nobody can attach to {console} of the machine at {machine}: {why}")]
    Unattachable {
        /// Its control socket.
        machine: PathBuf,
        /// Which.
        console: String,
        /// Why, and what to do.
        why: String,
    },
    /// Nothing is there.
    #[error("there is no console at {path}")]
    Missing {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else is there.
    #[error("{path} is neither a socket nor a terminal")]
    NotAConsole {
        /// Where.
        path: PathBuf,
    },
    /// Nobody listens.
    #[error("can't attach to the console at {path}")]
    Refused {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A system call failed.
    #[error("can't {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: Errno,
    },
}

impl AttachError {
    /// Whether another command line would help.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::NoMachine) || matches!(self, Self::Ctl(error) if error.is_usage())
    }
}

/// Connects this terminal to the console that is wanted, until the user leaves or the guest ends.
///
/// # Errors
/// [`AttachError`], before there was a console. That it ends is none.
pub fn run(wanted: &Console) -> Result<(), AttachError> {
    let place = Place::find(wanted)?;
    let link = place.open()?;
    let user = User::take(&place.name())?;
    let is_person = user.is_person();
    let mut session = Session::new(user, link);
    let end = loop {
        match session.run()? {
            // A pseudo-terminal without a link has another name then.
            End::Closed if place.may_come_back() => {
                match Place::find(wanted).and_then(|new| new.open()) {
                    Ok(link) => session.goes_on(link),
                    Err(_not_yet) => {
                        if let Some(end) = session.wait(LOOK)? {
                            break end;
                        }
                    }
                }
            }
            end => break end,
        }
    };
    session.finish(end)?;
    if is_person {
        let name = place.name();
        match end {
            End::Left => eprintln!("\natoll: left {name}"),
            End::Closed => eprintln!("\natoll: {name} is closed, as its machine has ended"),
            End::Unread => {}
        }
    }
    Ok(())
}
