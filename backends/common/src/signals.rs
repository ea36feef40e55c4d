//! Being asked to end: SIGTERM and SIGINT become one event that every wait of the session's thread
//! notices, also one in the middle of a front-end's message.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use sd_notify::NotifyState;

use crate::service;

const STACK: usize = 64 * 1024;

/// Set once the process is asked to end.
pub(crate) struct EndRequest {
    asked: AtomicBool,
    event: EventFd,
    connection: Mutex<Option<UnixStream>>,
}

impl EndRequest {
    /// Begins to listen for the signals. Threads started later leave them to this one's.
    pub(crate) fn listen() -> io::Result<Arc<Self>> {
        let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        signals.thread_block()?;
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let request =
            Arc::new(Self { asked: AtomicBool::new(false), event, connection: Mutex::default() });
        let raised = Arc::clone(&request);
        thread::Builder::new().name("signals".into()).stack_size(STACK).spawn(move || {
            // Or it would take, and lose, those that a device reads itself, such as SIGWINCH.
            let _always = SigSet::all().thread_block();
            if let Ok(signal) = signals.wait() {
                tracing::info!("{signal}: finishing what is in flight");
                service::notify(&NotifyState::Stopping);
                raised.raise();
            }
            if let Ok(signal) = signals.wait() {
                tracing::error!("{signal} again: ending at once");
                std::process::exit(1);
            }
        })?;
        Ok(request)
    }

    /// Whether the process was asked to end.
    pub(crate) fn is_raised(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Names the connection to cut when the process is asked to end.
    pub(crate) fn cuts(&self, connection: Option<UnixStream>) {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = connection;
        if self.is_raised() {
            cut(slot.as_ref());
        }
    }

    fn raise(&self) {
        self.asked.store(true, Ordering::Release);
        // A full counter wakes as well as any.
        let _full = self.event.write(1);
        cut(self.connection.lock().unwrap_or_else(PoisonError::into_inner).as_ref());
    }
}

impl AsFd for EndRequest {
    /// Readable once the process is asked to end.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

fn cut(connection: Option<&UnixStream>) {
    if let Some(connection) = connection {
        // It fails when the front-end has cut it already.
        let _closed = connection.shutdown(Shutdown::Both);
    }
}
