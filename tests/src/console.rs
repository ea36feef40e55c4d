//! The far end of a guest's console: a Unix socket whose bytes are kept as they come.
//!
//! Knows nothing of shells; see [`shell`](crate::shell).

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A console. A thread of its own reads it all the time, so a guest never waits for a test.
pub struct Console {
    stream: UnixStream,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    closed: bool,
}

/// Why a wait for a console's output was in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// The other end closed it.
    Closed,
    /// It said other things, or nothing, until the time was up.
    TimeUp,
}

impl Console {
    /// Connects to the console that `path` is the socket of, if anybody listens there yet.
    pub fn connect(path: &Path) -> Option<Self> {
        let stream = UnixStream::connect(path).ok()?;
        let heard = Arc::new(Heard::default());
        let reader = stream.try_clone().expect("clone a console's socket");
        let listener = Arc::clone(&heard);
        std::thread::Builder::new()
            .name("console".to_owned())
            .spawn(move || listener.listen(reader))
            .expect("start a console's thread");
        Some(Self { stream, heard })
    }

    /// Types `text`.
    ///
    /// # Panics
    /// When the other end has closed the console.
    #[track_caller]
    pub fn type_text(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).expect("type into a console");
    }

    /// How much has been heard so far: where a later [`wait_for`](Self::wait_for) may start.
    pub fn position(&self) -> usize {
        self.heard.lock().bytes.len()
    }

    /// All that was heard so far, without carriage returns.
    pub fn transcript(&self) -> String {
        text(&self.heard.lock().bytes)
    }

    /// Waits until `find` finds what it looks for in what was heard since `position`.
    ///
    /// # Errors
    /// [`Silence`] when it never does.
    pub fn wait_for<T>(
        &self,
        position: usize,
        limit: Duration,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, Silence> {
        let deadline = Instant::now() + limit;
        let mut state = self.heard.lock();
        loop {
            let since = state.bytes.get(position..).unwrap_or_default();
            if let Some(found) = find(&text(since)) {
                return Ok(found);
            }
            if state.closed {
                return Err(Silence::Closed);
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return Err(Silence::TimeUp);
            };
            state = self.heard.more.wait_timeout(state, left).expect("a console's lock").0;
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // Ends the reading thread. ENOTCONN: the other end has closed it already.
        let _closed = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a console's lock")
    }

    fn listen(&self, mut stream: UnixStream) {
        let mut buffer = [0; 4096];
        loop {
            // An error is an end as well.
            let count = stream.read(&mut buffer).unwrap_or(0);
            let mut state = self.lock();
            match buffer.get(..count) {
                Some(bytes) if count > 0 => state.bytes.extend_from_slice(bytes),
                _ => state.closed = true,
            }
            let closed = state.closed;
            drop(state);
            self.more.notify_all();
            if closed {
                return;
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}
