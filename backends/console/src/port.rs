//! One port: the console itself, or a named one. Its line, and the workers of its two queues.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use atoll_backend::ConfigChange;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::line::{Line, Watcher};
use crate::outlet::{OpenError, Outlet};
use crate::ports::{Gate, Ports};
use crate::receive::Receive;
use crate::transmit::Transmit;
use crate::window::{Size, Window};

/// A stream of bytes each way.
pub(crate) struct Port {
    line: Mutex<Line>,
    /// The workers' ends of the pipes.
    keys: Arc<OwnedFd>,
    output: Arc<OwnedFd>,
    /// How much of the first chain that the driver made available was printed before the ring
    /// stopped.
    printed: Arc<AtomicUsize>,
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
        let failed = |doing| move |errno| OpenError::System { doing, source: errno };
        let pipe = || pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(failed("make a pipe"));
        let ((keys, keys_in), (output_out, output)) = (pipe()?, pipe()?);
        // The console's driver has nothing to say of whether somebody reads it.
        let gate = watcher.ports.as_ref().filter(|_| watcher.id > 0);
        let gate = gate.map(|ports| ports.gate(watcher.id));
        let line = Line::new(outlet, output_out, keys_in, Box::new(watcher), replay)
            .map_err(|error| OpenError::Thread { source: error })?;
        let (keys, output) = (Arc::new(keys), Arc::new(output));
        Ok(Self { line: Mutex::new(line), keys, output, printed: Arc::default(), gate })
    }

    /// Starts to serve it.
    pub(crate) fn start(&self) -> Result<(), OpenError> {
        let started = self.line.lock().unwrap_or_else(PoisonError::into_inner).start();
        started.map_err(|source| OpenError::Thread { source })
    }

    /// What serves its receive queue.
    pub(crate) fn receive(&self) -> Receive {
        Receive::new(Arc::clone(&self.keys), self.gate.clone())
    }

    /// What serves its transmit queue.
    pub(crate) fn transmit(&self) -> Transmit {
        Transmit::new(Arc::clone(&self.output), Arc::clone(&self.printed))
    }

    /// The driver forgets what it has in its rings.
    pub(crate) fn reset(&self) {
        self.printed.store(0, Ordering::Relaxed);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.line.get_mut().unwrap_or_else(PoisonError::into_inner).stop();
    }
}
