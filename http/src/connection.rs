//! One client's connection: bytes in, requests out; responses in, bytes out. Never blocks, and holds
//! no more than one request and what is left of one response.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::message::{self, MAX_REQUEST, Request, Status, Unserved};

/// How long a request may take to arrive once its first byte has.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How long nothing may be asked, or a response be left unread.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);
/// How much is read at once.
const CHUNK: usize = 4096;

/// What a connection is for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A request is to come.
    Asking,
    /// An answer is being worked on.
    Waiting {
        /// Whether another request may follow it.
        keep_alive: bool,
    },
    /// Events go out; this is the number of the last.
    Following {
        /// Its number.
        seen: u64,
    },
    /// What is left goes out, then it is over.
    Closing,
}

/// One client.
pub struct Connection {
    stream: UnixStream,
    /// What it is for at the moment.
    pub phase: Phase,
    input: Vec<u8>,
    output: Vec<u8>,
    /// When it is given up, unless something happens.
    deadline: Instant,
    /// Whether the client has said that it will send no more.
    ended: bool,
    /// Whether it may ask nothing for as long as it likes.
    patient: bool,
    /// Whether a request waits until the answer before it has gone out.
    blocked: bool,
}

impl Connection {
    /// A client that has just come.
    ///
    /// # Errors
    /// When its socket can't be made not to block.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            phase: Phase::Asking,
            input: Vec::new(),
            output: Vec::new(),
            deadline: Instant::now() + IDLE_DEADLINE,
            ended: false,
            patient: false,
            blocked: false,
        })
    }

    /// One that may ask nothing for as long as it likes.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn patient(stream: UnixStream) -> io::Result<Self> {
        Self::new(stream).map(|connection| Self { patient: true, ..connection })
    }

    /// What to wait for. A client that hangs up is always heard.
    pub fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        // Requests are answered one after the other: the next may wait in the socket.
        if matches!(self.phase, Phase::Asking | Phase::Following { .. })
            && !self.ended
            && !self.blocked
        {
            flags |= PollFlags::POLLIN;
        }
        if !self.output.is_empty() {
            flags |= PollFlags::POLLOUT;
        }
        flags
    }

    /// When it is given up; `None` while it is not for the client to do something.
    pub fn deadline(&self) -> Option<Instant> {
        let rests = self.patient && self.phase == Phase::Asking && self.input.is_empty();
        let waits = rests || matches!(self.phase, Phase::Waiting { .. } | Phase::Following { .. });
        (!waits || !self.output.is_empty()).then_some(self.deadline)
    }

    /// Takes what the client has sent. False when it has left.
    pub fn read(&mut self) -> bool {
        let mut chunk = [0; CHUNK];
        loop {
            match self.stream.read(&mut chunk) {
                // It may have closed only its own direction, and wait for the answer.
                Ok(0) => {
                    self.ended = true;
                    return self.phase == Phase::Asking && !self.input.is_empty();
                }
                // A client that follows has nothing more to say; what it says is not kept.
                Ok(_) if self.phase != Phase::Asking => {}
                Ok(count) => {
                    if self.input.is_empty() {
                        self.deadline = Instant::now() + REQUEST_DEADLINE;
                    }
                    self.input.extend(chunk.iter().take(count));
                    if self.input.len() > MAX_REQUEST {
                        return true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    /// The next request, if it has come.
    ///
    /// # Errors
    /// [`Unserved`], when none can come any more.
    pub fn take_request(&mut self) -> Result<Option<Request>, Unserved> {
        if self.phase != Phase::Asking {
            return Ok(None);
        }
        // At most one answer is on its way, or who asks and does not read could fill the memory.
        self.blocked = !self.output.is_empty() && (!self.write() || !self.output.is_empty());
        if self.blocked {
            return Ok(None);
        }
        let request = message::take_request(&mut self.input)?;
        if let Some(request) = &request {
            self.phase = Phase::Waiting { keep_alive: request.keep_alive };
        }
        Ok(request)
    }

    /// Whether the response that is being made should say that it is the last.
    pub fn is_last(&self) -> bool {
        self.ended || self.phase != Phase::Waiting { keep_alive: true }
    }

    /// Answers the request that was taken.
    pub fn answer(&mut self, response: &[u8]) {
        let next = if self.is_last() { Phase::Closing } else { Phase::Asking };
        self.send(response);
        self.phase = next;
    }

    /// Says that no request came, and why that is the end.
    pub fn give_up(&mut self, unserved: &Unserved) {
        self.phase = Phase::Closing;
        self.send(&message::refuse(unserved, true));
    }

    /// Puts bytes on their way.
    pub fn send(&mut self, bytes: &[u8]) {
        if self.output.is_empty() {
            self.deadline = Instant::now() + IDLE_DEADLINE;
        }
        self.output.extend_from_slice(bytes);
    }

    /// Whether nothing more comes from either side.
    pub fn is_done(&self) -> bool {
        self.ended && !self.blocked && self.phase == Phase::Asking
    }

    /// Whether a request waits until the answer before it has gone out.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether everything has gone out.
    pub fn is_drained(&self) -> bool {
        self.output.is_empty()
    }

    /// Writes what the socket takes. False when the connection is over.
    pub fn write(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return false,
                Ok(count) => {
                    self.output.drain(..count);
                    self.deadline = Instant::now() + IDLE_DEADLINE;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        self.phase != Phase::Closing
    }

    /// The deadline has passed: says so where there is somebody to say it to. False when the
    /// connection is over.
    pub fn expire(&mut self) -> bool {
        if self.phase != Phase::Asking || self.input.is_empty() || self.blocked {
            return false;
        }
        let why = format!("the request did not arrive within {} s", REQUEST_DEADLINE.as_secs());
        self.give_up(&Unserved::new(Status::Timeout, why));
        self.write()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
