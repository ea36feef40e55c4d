//! Asks somebody at the other end of a connection, one question after the other. Waits for the
//! answer, and never longer than it is told to.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::answer::{Answer, BadAnswer, take_answer};

/// The most questions that may be left unanswered.
const MAX_OWED: u32 = 8;
/// How much is read at once.
const CHUNK: usize = 4096;

/// There is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It takes too long; the next question waits for it.
    #[error("it does not answer within {} ms", patience.as_millis())]
    Late {
        /// How long it was waited for.
        patience: Duration,
    },
    /// Nobody is there any more.
    #[error("it has closed the connection")]
    Left,
    /// The connection fails.
    #[error("the connection fails")]
    Connection(#[source] io::Error),
    /// What comes is no answer.
    #[error(transparent)]
    Bad(#[from] BadAnswer),
}

/// Who asks, over one connection.
#[derive(Debug)]
pub struct Asker {
    stream: UnixStream,
    input: Vec<u8>,
    /// Answers that were not waited for any longer. They come before those to come.
    owed: u32,
    /// Nothing more can be asked.
    broken: bool,
}

impl Asker {
    /// Asks over `stream`, on which nothing was said yet.
    ///
    /// # Errors
    /// The system's.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        Ok(Self { stream, input: Vec::new(), owed: 0, broken: false })
    }

    /// Sends `request` and waits up to `patience` for its answer.
    ///
    /// # Errors
    /// [`AskError`]. After [`AskError::Late`] it may be asked again, after the others not.
    pub fn ask(&mut self, request: &[u8], patience: Duration) -> Result<Answer, AskError> {
        if self.broken {
            return Err(AskError::Left);
        }
        let end = Instant::now().checked_add(patience);
        let left = || end.map_or(patience, |end| end.saturating_duration_since(Instant::now()));
        // One that hangs is not asked for ever: its socket would fill.
        while self.owed >= MAX_OWED {
            let _late = self.receive(&left, patience)?;
            self.owed = self.owed.saturating_sub(1);
        }
        self.send(request, &left, patience)?;
        // Its answer is owed as soon as it is sent, and comes after all that were before.
        self.owed = self.owed.saturating_add(1);
        loop {
            let answer = self.receive(&left, patience)?;
            self.owed = self.owed.saturating_sub(1);
            if self.owed == 0 {
                return Ok(answer);
            }
        }
    }

    fn send(
        &mut self,
        request: &[u8],
        left: &impl Fn() -> Duration,
        patience: Duration,
    ) -> Result<(), AskError> {
        let left = left().max(Duration::from_millis(1));
        let sent = self.stream.set_write_timeout(Some(left));
        // Half a request can't be followed by another.
        sent.and_then(|()| self.stream.write_all(request)).map_err(|error| {
            self.broken = true;
            judge(error, patience)
        })
    }

    fn receive(
        &mut self,
        left: &impl Fn() -> Duration,
        patience: Duration,
    ) -> Result<Answer, AskError> {
        let received = self.receive_some(left, patience);
        self.broken |=
            matches!(received, Err(ref error) if !matches!(error, AskError::Late { .. }));
        received
    }

    fn receive_some(
        &mut self,
        left: &impl Fn() -> Duration,
        patience: Duration,
    ) -> Result<Answer, AskError> {
        let mut chunk = [0; CHUNK];
        loop {
            if let Some(answer) = take_answer(&mut self.input)? {
                return Ok(answer);
            }
            let left = left();
            if left.is_zero() {
                return Err(AskError::Late { patience });
            }
            let read = self.stream.set_read_timeout(Some(left));
            match read.and_then(|()| self.stream.read(&mut chunk)) {
                Ok(0) => return Err(AskError::Left),
                Ok(count) => self.input.extend(chunk.iter().take(count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(judge(error, patience)),
            }
        }
    }
}

fn judge(error: io::Error, patience: Duration) -> AskError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::Late { patience },
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => AskError::Left,
        _ => AskError::Connection(error),
    }
}

#[cfg(test)]
#[path = "asker_test.rs"]
mod tests;
