//! What the console tells the shared code: its features, configuration and queues.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use atoll_backend::{
    Capabilities, ConfigChange, ConfigRefused, Device, DeviceError, Identity, Worker,
};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use crate::line::Line;
use crate::outlet::{OpenError, Outlet};
use crate::receive::Receive;
use crate::transmit::Transmit;
use crate::window::Window;
use crate::{Options, outlets};

/// What `--print-capabilities` says. QEMU's conventions name no type for consoles.
pub const CAPABILITIES: Capabilities = Capabilities { device_type: "console", features: &[] };

/// virtio 1.3 §5.3.3: the window's size is in the configuration.
const VIRTIO_CONSOLE_F_SIZE: u32 = 0;

/// virtio 1.3 §5.3.2: port 0's receive queue, and its transmit queue.
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const QUEUES: u16 = 2;

/// As other devices of its kind have.
const MAX_QUEUE_SIZE: u16 = 1024;

/// A console with one port.
pub struct Console {
    line: Line,
    window: Option<Arc<Window>>,
    config_change: ConfigChange,
    /// The workers' ends of the pipes.
    keys: Arc<OwnedFd>,
    output: Arc<OwnedFd>,
    /// How much of the first chain that the driver made available was printed before the ring
    /// stopped.
    printed: Arc<AtomicUsize>,
}

impl Console {
    /// Opens what the command line names, and starts to serve it.
    ///
    /// # Errors
    /// [`OpenError`] when it can't be opened.
    pub fn open(options: &Options, config_change: ConfigChange) -> Result<Self, OpenError> {
        let outlet: Box<dyn Outlet> = outlets::open(options)?;
        let failed = |doing| move |errno| OpenError::System { doing, source: errno };
        let pipe = || pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(failed("make a pipe"));
        let ((keys, keys_in), (output_out, output)) = (pipe()?, pipe()?);
        let window = outlet.window().map(|size| {
            let window = Window::default();
            window.set(size);
            Arc::new(window)
        });
        let line = Line::start(outlet, output_out, keys_in, window.clone(), config_change.clone())
            .map_err(|error| OpenError::Thread { source: error })?;
        let (keys, output) = (Arc::new(keys), Arc::new(output));
        Ok(Self { line, window, config_change, keys, output, printed: Arc::default() })
    }
}

impl Device for Console {
    fn identity(&self) -> Identity {
        let size = u64::from(self.window.is_some()) << VIRTIO_CONSOLE_F_SIZE;
        Identity {
            name: "console",
            device_type: VIRTIO_ID_CONSOLE,
            features: size,
            queues: QUEUES,
            max_queue_size: MAX_QUEUE_SIZE,
        }
    }

    /// virtio 1.3 §5.3.4: cols, rows, max_nr_ports, emerg_wr.
    fn config(&self) -> Vec<u8> {
        let (columns, rows) = self
            .window
            .as_ref()
            .map(|window| window.get())
            .map_or((0, 0), |size| (size.columns, size.rows));
        let mut space = [columns.to_le_bytes(), rows.to_le_bytes()].concat();
        space.extend(1_u32.to_le_bytes());
        space.extend(0_u32.to_le_bytes());
        space
    }

    fn write_config(&self, _offset: usize, _data: &[u8]) -> Result<(), ConfigRefused> {
        // Only emerg_wr may be written, and its feature is not offered.
        Err(ConfigRefused { field: "console configuration" })
    }

    fn open_queue(&self, index: u16, _features: u64) -> Result<Box<dyn Worker>, DeviceError> {
        match index {
            RECEIVE => {
                // Linux looks at the window's size when it is told of a change, and only then.
                if self.window.is_some() {
                    self.config_change.announce();
                }
                Ok(Box::new(Receive::new(Arc::clone(&self.keys))))
            }
            TRANSMIT => {
                let (output, printed) = (Arc::clone(&self.output), Arc::clone(&self.printed));
                Ok(Box::new(Transmit::new(output, printed)))
            }
            _ => Err(format!("there is no queue {index}").into()),
        }
    }

    fn reset(&self) {
        self.printed.store(0, Ordering::Relaxed);
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.line.stop();
    }
}
