//! One port: the console itself, or a named one. Its line, and the workers of its two queues.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use atoll_backend::ConfigChange;

use crate::carrier::Watcher;
use crate::line::Line;
use crate::outlet::{OpenError, Outlet};
use crate::part::LastPart;
use crate::ports::{Gate, Ports};
use crate::receive::Receive;
use crate::transmit::Transmit;
use crate::window::{Size, Window};

/// A stream of bytes each way.
pub(crate) struct Port {
    line: Arc<Line>,
    /// The line's own, once it is started.
    thread: Mutex<Option<JoinHandle<()>>>,
    /// What its transmit queue's ring had printed in part when it stopped.
    last_part: Arc<LastPart>,
    gate: Option<Gate>,
}

/// Who hears what happens at a port's outlet.
pub(crate) struct PortWatcher {
    pub(crate) id: usize,
    pub(crate) ports: Option<Ports>,
    pub(crate) window: Option<Arc<Window>>,
    pub(crate) config_change: ConfigChange,
    /// What readers of all ports have missed, in bytes.
    pub(crate) missed: Arc<AtomicU64>,
}

impl Watcher for PortWatcher {
    fn attached(&self, attached: bool) {
        if let Some(ports) = &self.ports {
            ports.attached(self.id, attached);
        }
    }

    fn window(&self, size: Size) {
        if let Some(window) = &self.window
            && window.set(size)
        {
            // A driver that uses several ports listens to the one, any other to the other.
            self.ports.iter().for_each(|ports| ports.resized(size));
            self.config_change.announce();
        }
    }

    fn missed(&self, bytes: u64) {
        self.missed.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Port {
    /// Is to serve `outlet`.
    pub(crate) fn open(
        outlet: Box<dyn Outlet>,
        watcher: PortWatcher,
        replay: bool,
    ) -> Result<Self, OpenError> {
        let failed = |source| OpenError::System { doing: "make what a port waits with", source };
        // The console's driver has nothing to say of whether somebody reads it.
        let gate = watcher.ports.as_ref().filter(|_| watcher.id > 0);
        let gate = gate.map(|ports| ports.gate(watcher.id));
        let line = Line::new(outlet, Box::new(watcher), replay).map_err(failed)?;
        let (line, thread) = (Arc::new(line), Mutex::default());
        Ok(Self { line, thread, last_part: Arc::default(), gate })
    }

    /// Starts to serve it.
    pub(crate) fn start(&self) -> Result<(), OpenError> {
        let started = self.line.start().map_err(|source| OpenError::Thread { source })?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
        Ok(())
    }

    /// What serves its receive queue.
    pub(crate) fn receive(&self) -> Receive {
        Receive::new(Arc::clone(&self.line), self.gate.clone())
    }

    /// What serves its transmit queue.
    pub(crate) fn transmit(&self) -> Transmit {
        Transmit::new(Arc::clone(&self.line), Arc::clone(&self.last_part))
    }

    /// The driver forgets what it has in its rings.
    pub(crate) fn reset(&self) {
        self.last_part.reset();
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.line.stop();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // It does not panic; if it did, the process is gone.
        let _ended = thread.map(JoinHandle::join);
    }
}
