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
const SIGNALS: [Signal; 2] = [Signal::SIGTERM, Signal::SIGINT];

/// Set once the process is asked to end.
pub(crate) struct EndRequest {
    asked: AtomicBool,
    event: EventFd,
    connection: Mutex<Option<UnixStream>>,
}

impl EndRequest {
    /// Keeps the signals from this thread, and those that it starts, until they are listened for.
    pub(crate) fn listen() -> io::Result<Arc<Self>> {
        let signals: SigSet = SIGNALS.into_iter().collect();
        signals.thread_block()?;
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Arc::new(Self { asked: AtomicBool::new(false), event, connection: Mutex::default() }))
    }

    /// Starts the thread that waits for the signals.
    pub(crate) fn watch(self: &Arc<Self>) -> io::Result<()> {
        let signals = SIGNALS.into_iter().collect::<SigSet>();
        let raised = Arc::clone(self);
        thread::Builder::new().name("signals".into()).stack_size(STACK).spawn(move || {
            // Or it would take, and lose, those that a device reads itself, such as SIGWINCH.
            // But not what the sandbox says last.
            let mut others = SigSet::all();
            others.remove(Signal::SIGSYS);
            let _always = others.thread_block();
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
        Ok(())
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
