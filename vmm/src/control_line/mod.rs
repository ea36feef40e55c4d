//! The line to a device's process over which it is asked what vhost-user has no messages for: what
//! it has counted, how fast it may be, how large its disk is, whether its cable is plugged in.
//!
//! Who is at the other end is believed nothing, and waited for only so long. What was set is kept for
//! the next process, where it is ours to start.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

mod settings;

use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atoll_http::{AskError, Asker, request};
use serde::Deserialize;
use serde_json::{Value, json};

pub use settings::{Limits, Settings, limit_name, limit_names, lone_burst};

/// How long a process may take to answer from what it has in memory.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take to make an image larger.
const PATIENCE_FOR_STORAGE: Duration = Duration::from_secs(30);
/// The most of a process's own sentence that is passed on.
const SENTENCE: usize = 500;

/// A process does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Nobody is at the other end.
    #[error("its {program} is not there now")]
    NoProcess {
        /// The program that atoll starts.
        program: &'static str,
    },
    /// Nobody listens.
    #[error("can't reach its control socket {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No answer comes.
    #[error("{who} can't be asked")]
    Ask {
        /// The process.
        who: String,
        /// Why.
        source: AskError,
    },
    /// Something else comes.
    #[error("{who} answers with what is no answer to that")]
    Answer {
        /// The process.
        who: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It is not text.
    #[error("{who} answers with what is no text")]
    Text {
        /// The process.
        who: String,
        /// What is wrong with it.
        source: std::string::FromUtf8Error,
    },
    /// The process says that the question is wrong.
    #[error("{0}")]
    Wrong(String),
    /// The process says no.
    #[error("{0}")]
    Refused(String),
}

/// A pseudo-terminal that a console's process has made.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Terminal {
    /// The name of the port that it is of, if it is not the console's own.
    pub port: Option<String>,
    /// Its name.
    pub path: PathBuf,
}

/// The line to one device's process.
#[derive(Debug)]
pub struct ControlLine {
    end: End,
    state: Mutex<State>,
}

/// Where the line leads.
#[derive(Debug)]
enum End {
    /// To the child that runs this program, whichever it is now.
    Child(&'static str),
    /// To who listens there.
    Socket(PathBuf),
}

#[derive(Debug, Default)]
struct State {
    /// The child's end, while there is one.
    child: Option<Asker>,
    /// For the next child.
    settings: Settings,
}

impl ControlLine {
    /// To the children that run `program`, the first of which starts with `settings`.
    pub fn to_child(program: &'static str, settings: Settings) -> Self {
        Self { end: End::Child(program), state: Mutex::new(State { child: None, settings }) }
    }

    /// To who listens at `path`.
    pub fn to_socket(path: PathBuf) -> Self {
        Self { end: End::Socket(path), state: Mutex::default() }
    }

    /// A child is about to start, the one before has ended: the options that it starts with.
    pub fn hang_up(&self) -> Vec<OsString> {
        let mut state = self.state();
        state.child = None;
        state.settings.arguments()
    }

    /// A child has started, and this is the other end of what it was given.
    ///
    /// # Errors
    /// The system's.
    pub fn connect(&self, stream: UnixStream) -> io::Result<()> {
        self.state().child = Some(Asker::new(stream)?);
        Ok(())
    }

    /// The limits that apply, by their names.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn limits(&self) -> Result<Limits, LineError> {
        self.parse(&self.ask(&mut self.state(), "GET", "/limits", b"", PATIENCE)?).map(known)
    }

    /// Changes some of the limits; returns all.
    ///
    /// # Errors
    /// [`LineError`]; nothing has changed.
    pub fn limit(&self, change: &Limits) -> Result<Limits, LineError> {
        // Held until it is known for the next process: none may start in between.
        let mut state = self.state();
        let body = json!(change).to_string();
        let answer = self.ask(&mut state, "PATCH", "/limits", body.as_bytes(), PATIENCE)?;
        state.settings.limit(change);
        self.parse(&answer).map(known)
    }

    /// Makes a disk `size` bytes long, or has its process look at the image's size again; returns the
    /// size that the guest is told.
    ///
    /// # Errors
    /// [`LineError`]; nothing has changed.
    pub fn resize(&self, size: Option<u64>) -> Result<u64, LineError> {
        #[derive(Deserialize)]
        struct Size {
            size: u64,
        }
        let body = size.map_or_else(|| json!({}), |size| json!({ "size": size })).to_string();
        let (body, patience) = (body.as_bytes(), PATIENCE_FOR_STORAGE);
        let answer = self.ask(&mut self.state(), "PATCH", "/size", body, patience)?;
        self.parse(&answer).map(|Size { size }| size)
    }

    /// Plugs a network card's cable in, or pulls it.
    ///
    /// # Errors
    /// [`LineError`]; nothing has changed.
    pub fn link(&self, up: bool) -> Result<(), LineError> {
        let mut state = self.state();
        let body = json!({ "up": up }).to_string();
        self.ask(&mut state, "PATCH", "/link", body.as_bytes(), PATIENCE)?;
        state.settings.link(up);
        Ok(())
    }

    /// The pseudo-terminals that a console's process has made, without those that no such process can make.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn terminals(&self) -> Result<Vec<Terminal>, LineError> {
        #[derive(Deserialize)]
        struct About {
            #[serde(default)]
            terminals: Vec<Terminal>,
        }
        let answer = self.ask(&mut self.state(), "GET", "/", b"", PATIENCE)?;
        let About { mut terminals } = self.parse(&answer)?;
        terminals.retain(|terminal| is_pseudo_terminal(&terminal.path));
        Ok(terminals)
    }

    /// What the process has counted, in Prometheus' text format if it does as it should.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn metrics(&self) -> Result<String, LineError> {
        let answer = self.ask(&mut self.state(), "GET", "/metrics", b"", PATIENCE)?;
        String::from_utf8(answer).map_err(|source| LineError::Text { who: self.who(), source })
    }

    fn ask(
        &self,
        state: &mut State,
        method: &str,
        path: &str,
        body: &[u8],
        patience: Duration,
    ) -> Result<Vec<u8>, LineError> {
        let request = request(method, path, body);
        let answer = match &self.end {
            End::Child(program) => match state.child.as_mut() {
                Some(child) => child.ask(&request, patience),
                None => return Err(LineError::NoProcess { program }),
            },
            End::Socket(path) => {
                let connected = crate::vhost_user::try_connect(path).and_then(Asker::new);
                let failed = |source| LineError::Connect { path: path.clone(), source };
                connected.map_err(failed)?.ask(&request, patience)
            }
        };
        let answer = answer.map_err(|source| match (&self.end, source) {
            (End::Child(program), AskError::Left) => LineError::NoProcess { program },
            (_, source) => LineError::Ask { who: self.who(), source },
        })?;
        match answer.code {
            _ if answer.is_yes() => Ok(answer.body),
            400 => Err(LineError::Wrong(self.sentence(&answer.body)?)),
            _ => Err(LineError::Refused(self.sentence(&answer.body)?)),
        }
    }

    /// Why the process says no, fit to be printed.
    fn sentence(&self, body: &[u8]) -> Result<String, LineError> {
        #[derive(Deserialize)]
        struct No {
            error: String,
        }
        let No { error } = self.parse(body)?;
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        Ok(error.chars().take(SENTENCE).map(printable).collect())
    }

    fn parse<'a, T: Deserialize<'a>>(&self, body: &'a [u8]) -> Result<T, LineError> {
        let parsed = serde_json::from_slice(body);
        parsed.map_err(|source| LineError::Answer { who: self.who(), source })
    }

    fn who(&self) -> String {
        match &self.end {
            End::Child(program) => format!("its {program}"),
            End::Socket(path) => format!("who listens at its control socket {}", path.display()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether that is the name of one: people who are told it type into it what is meant for the guest.
fn is_pseudo_terminal(path: &Path) -> bool {
    let number = path.to_str().and_then(|path| path.strip_prefix("/dev/pts/"));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// The limits among what a process says.
fn known(limits: serde_json::Map<String, Value>) -> Limits {
    let known = |(name, value): (String, Value)| Some((limit_name(&name)?, value.as_u64()?));
    limits.into_iter().filter_map(known).collect()
}

#[cfg(test)]
#[path = "line_test.rs"]
mod tests;
