//! One question to a control socket and its answer, each on a connection of its own. Knows HTTP, and
//! no question.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::CtlError;

/// How long an answer may take. A swap waits for two backends, each with its own deadlines.
const PATIENCE: Duration = Duration::from_secs(90);
/// The most that an answer may have.
const MAX_ANSWER: u64 = 16 << 20;
/// The most that its head may have.
const MAX_HEAD: usize = 16 << 10;

/// Asks the machine at one socket.
pub(crate) struct Client {
    path: PathBuf,
}

impl Client {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What the machine has at `resource`.
    pub(crate) fn get(&self, resource: &str) -> Result<Value, CtlError> {
        let answer = self.whole(self.ask("GET", resource, None)?)?;
        serde_json::from_slice(&answer).map_err(|error| self.garbage(error.to_string()))
    }

    /// Has the machine do what `resource` stands for.
    pub(super) fn put(&self, resource: &str, body: Option<&Value>) -> Result<(), CtlError> {
        self.whole(self.ask("PUT", resource, body)?).map(drop)
    }

    /// Changes part of what `resource` is; what it is then.
    pub(super) fn patch(&self, resource: &str, body: &Value) -> Result<Value, CtlError> {
        let answer = self.whole(self.ask("PATCH", resource, Some(body))?)?;
        serde_json::from_slice(&answer).map_err(|error| self.garbage(error.to_string()))
    }

    /// The text that the machine has at `resource`.
    pub(super) fn text(&self, resource: &str) -> Result<String, CtlError> {
        let answer = self.whole(self.ask("GET", resource, None)?)?;
        String::from_utf8(answer).map_err(|error| self.garbage(error.to_string()))
    }

    /// Calls `each` for every line that comes from `resource`, until no more comes.
    pub(super) fn follow(
        &self,
        resource: &str,
        mut each: impl FnMut(&str) -> Result<(), CtlError>,
    ) -> Result<(), CtlError> {
        let mut answer = self.ask("GET", resource, None)?;
        self.check(&mut answer)?;
        // There is nothing to say for as long as nothing happens.
        let endless = answer.get_ref().set_read_timeout(None);
        endless.map_err(|error| self.broken(error))?;
        let mut line = String::new();
        loop {
            line.clear();
            let mut bounded = (&mut answer).take(MAX_ANSWER);
            match bounded.read_line(&mut line) {
                Ok(0) => return Ok(()),
                Ok(_) => each(line.trim_end())?,
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    fn ask(
        &self,
        method: &str,
        resource: &str,
        body: Option<&Value>,
    ) -> Result<BufReader<UnixStream>, CtlError> {
        let mut stream = UnixStream::connect(&self.path)
            .map_err(|source| CtlError::Connect { path: self.path.clone(), source })?;
        let body = body.map_or_else(String::new, Value::to_string);
        let request = format!(
            "{method} /api/v1/{resource} HTTP/1.1\r\nHost: atoll\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let timed = stream.set_read_timeout(Some(PATIENCE));
        match timed.and_then(|()| stream.write_all(request.as_bytes())) {
            Ok(()) => Ok(BufReader::new(stream)),
            Err(error) => Err(self.broken(error)),
        }
    }

    /// The body of an answer that is a yes.
    fn whole(&self, mut answer: BufReader<UnixStream>) -> Result<Vec<u8>, CtlError> {
        self.check(&mut answer)?;
        self.rest(answer)
    }

    fn rest(&self, answer: BufReader<UnixStream>) -> Result<Vec<u8>, CtlError> {
        let mut body = Vec::new();
        let read = answer.take(MAX_ANSWER).read_to_end(&mut body);
        read.map_err(|error| self.broken(error))?;
        Ok(body)
    }

    /// Reads the head of an answer, and all of it where it is a no.
    fn check(&self, answer: &mut BufReader<UnixStream>) -> Result<(), CtlError> {
        let code = self.code(answer)?;
        if (200..300).contains(&code) {
            return Ok(());
        }
        let mut body = Vec::new();
        let read = answer.take(MAX_ANSWER).read_to_end(&mut body);
        read.map_err(|error| self.broken(error))?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        match body.get("error").and_then(Value::as_str) {
            Some(sentence) => Err(CtlError::Refused(sentence.to_owned())),
            None => Err(self.garbage(format!("it answers with code {code}"))),
        }
    }

    fn code(&self, answer: &mut BufReader<UnixStream>) -> Result<u16, CtlError> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut line = answer.take(u64::try_from(MAX_HEAD).unwrap_or(u64::MAX));
            let count = line.read_until(b'\n', &mut head).map_err(|error| self.broken(error))?;
            if count == 0 || head.len() > MAX_HEAD {
                return Err(self.garbage("it does not speak HTTP".to_owned()));
            }
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&head) {
            Ok(_) => response.code.ok_or_else(|| self.garbage("it has no status".to_owned())),
            Err(error) => Err(self.garbage(format!("it does not speak HTTP: {error}"))),
        }
    }

    fn broken(&self, source: io::Error) -> CtlError {
        let source = match source.kind() {
            io::ErrorKind::WouldBlock => {
                io::Error::other(format!("there was no answer within {} s", PATIENCE.as_secs()))
            }
            _ => source,
        };
        CtlError::Connection { path: self.path.clone(), source }
    }

    fn garbage(&self, reason: String) -> CtlError {
        CtlError::Garbage { path: self.path.clone(), reason }
    }
}
