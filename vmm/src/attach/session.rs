//! Bytes between a user and a console, for as long as both are there. It sleeps unless there is
//! something to move, and holds little.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::AttachError;
use super::link::Link;
use super::user::{User, Wish};

/// The most keys that wait for a guest that does not read. A person can still leave then.
const MOST_KEYS: usize = 64 * 1024;
/// How much of the console's output is taken at once.
const CHUNK: usize = 64 * 1024;
/// How long the last keys and the last output may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How a session came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The user wants it.
    Left,
    /// The console is no more.
    Closed,
    /// Nobody is left to see what comes.
    Unread,
}

/// A user and a console.
pub(super) struct Session {
    user: User,
    /// `None` once it is lost.
    link: Option<Link>,
    keys: Vec<u8>,
    output: Vec<u8>,
    /// How much of the output is shown.
    shown: usize,
    /// The console does not know of the window yet.
    window_due: bool,
}

impl Session {
    pub(super) fn new(user: User, link: Link) -> Self {
        let window_due = user.terminal().is_some();
        let (keys, output) = (Vec::new(), Vec::new());
        Self { user, link: Some(link), keys, output, shown: 0, window_due }
    }

    /// The console that was lost is there again.
    pub(super) fn goes_on(&mut self, link: Link) {
        self.link = Some(link);
        self.window_due = self.user.terminal().is_some();
    }

    /// Moves bytes until there is a reason to end.
    pub(super) fn run(&mut self) -> Result<End, AttachError> {
        while self.link.is_some() || !self.output.is_empty() {
            if let Some(end) = self.turn(PollTimeout::NONE)? {
                return Ok(end);
            }
        }
        Ok(End::Closed)
    }

    /// Lets some time pass without a console, unless the user leaves.
    pub(super) fn wait(&mut self, time: Duration) -> Result<Option<End>, AttachError> {
        let end = self.turn(PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO))?;
        Ok(end.filter(|&end| end != End::Closed))
    }

    fn turn(&mut self, timeout: PollTimeout) -> Result<Option<End>, AttachError> {
        let (heard, console) = self.sleep(timeout)?;
        for wish in [
            if heard.signals { self.user.hear_signals() } else { Wish::None },
            if heard.keys { self.user.hear_keys(&mut self.keys) } else { Wish::None },
        ] {
            match wish {
                Wish::None => {}
                Wish::Window => self.window_due = true,
                Wish::Leave => return Ok(Some(End::Left)),
            }
        }
        self.say();
        if console && self.output.is_empty() && !self.listen() {
            self.link = None;
        }
        if !self.show() {
            return Ok(Some(End::Unread));
        }
        Ok((self.link.is_none() && self.output.is_empty()).then_some(End::Closed))
    }

    /// Waits for something to do: what the user has done, and whether the console has.
    fn sleep(&self, timeout: PollTimeout) -> Result<(Heard, bool), AttachError> {
        let nothing = (self.user.signals(), PollFlags::empty());
        let input = self.user.input().filter(|_| self.keys.len() < MOST_KEYS);
        let mut console = PollFlags::empty();
        console.set(PollFlags::POLLIN, self.output.is_empty());
        console.set(PollFlags::POLLOUT, !self.keys.is_empty() || self.window_due);
        // One that has hung up wakes even who waits for nothing.
        let link = self.link.as_ref().filter(|_| !console.is_empty());
        let waits = [
            (self.user.signals(), PollFlags::POLLIN),
            input.map_or(nothing, |input| (input, PollFlags::POLLIN)),
            link.map_or(nothing, |link| (link.as_fd(), console)),
            match self.output.is_empty() {
                true => nothing,
                false => (self.user.output(), PollFlags::POLLOUT),
            },
        ];
        let mut fds = waits.map(|(fd, flags)| PollFd::new(fd, flags));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(source) => {
                return Err(AttachError::System { doing: "wait for the console", source });
            }
        }
        let [signals, keys, console, _output] =
            fds.map(|fd| fd.revents().is_some_and(|revents| !revents.is_empty()));
        Ok((Heard { signals, keys: keys && input.is_some() }, console && link.is_some()))
    }

    /// Passes on what the console takes of keys, and the window's size.
    fn say(&mut self) {
        let Some(link) = &mut self.link else { return };
        if self.window_due {
            self.window_due = self.user.terminal().is_some_and(|user| !link.tell_window(user));
        }
        if self.keys.is_empty() {
            return;
        }
        match link.write(&self.keys) {
            Ok(count) => drop(self.keys.drain(..count.min(self.keys.len()))),
            Err(error) if is_later(error.kind()) => {}
            // It has hung up: reading says so.
            Err(_) => self.keys.clear(),
        }
    }

    /// Takes what the console prints. False at its end.
    fn listen(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        self.output.resize(CHUNK, 0);
        let read = link.read(&mut self.output);
        self.output.truncate(*read.as_ref().unwrap_or(&0));
        self.shown = 0;
        match read {
            Ok(count) => count > 0,
            Err(error) => is_later(error.kind()),
        }
    }

    /// Shows what there is room for. False when nobody is there.
    fn show(&mut self) -> bool {
        let rest = self.output.get(self.shown..).unwrap_or_default();
        if !rest.is_empty() {
            match self.user.show(rest) {
                Ok(count) => self.shown = self.shown.saturating_add(count),
                Err(Errno::EAGAIN | Errno::EINTR) => return true,
                Err(_) => return false,
            }
        }
        if self.shown >= self.output.len() {
            self.output.clear();
        }
        true
    }

    /// Lets out the last keys, and shows what was on its way when the user left: nobody else gets it.
    pub(super) fn finish(mut self, end: End) -> Result<(), AttachError> {
        let deadline = Instant::now() + LAST_WORDS;
        if end == End::Unread {
            return Ok(());
        }
        // The guest may read no keys.
        while !self.keys.is_empty() && self.link.is_some() && Instant::now() < deadline {
            let Some(link) = &self.link else { break };
            wait(link.as_fd(), PollFlags::POLLOUT, deadline)?;
            self.say();
        }
        if let Some(link) = &mut self.link {
            link.leave();
        }
        let mut more = true;
        while Instant::now() < deadline {
            if self.output.is_empty() {
                more = more && self.listen() && !self.output.is_empty();
                if !more {
                    break;
                }
            }
            if !self.show() {
                break;
            }
            if !self.output.is_empty() {
                wait(self.user.output(), PollFlags::POLLOUT, deadline)?;
            }
        }
        Ok(())
    }
}

/// What the user has done.
struct Heard {
    signals: bool,
    keys: bool,
}

fn is_later(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn wait(
    fd: std::os::fd::BorrowedFd<'_>,
    flags: PollFlags,
    deadline: Instant,
) -> Result<(), AttachError> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
    match poll(&mut [PollFd::new(fd, flags)], timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(source) => Err(AttachError::System { doing: "wait for the console", source }),
    }
}
