//! What the console tells the shared code: its features, configuration and queues.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use atoll_backend::{
    Capabilities, ConfigChange, ConfigRefused, Counter, Device, DeviceError, Identity, Panel,
    Sysno, SystemCall, Terminal, Worker,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use crate::control_queues::{ControlReceive, ControlTransmit};
use crate::outlet::{OpenError, Outlet};
use crate::port::{Port, PortWatcher};
use crate::ports::Ports;
use crate::window::Window;
use crate::{Options, outlets};

/// What `--print-capabilities` says. QEMU's conventions name no type for consoles.
pub const CAPABILITIES: Capabilities = Capabilities { device_type: "console", features: &[] };

/// virtio 1.3 §5.3.3: the window's size is in the configuration; there are several ports.
const VIRTIO_CONSOLE_F_SIZE: u32 = 0;
const VIRTIO_CONSOLE_F_MULTIPORT: u32 = 1;

/// virtio 1.3 §5.3.2: a pair of queues for port 0, one for control, one for each further port; in
/// each the one in which the driver receives is first.
const PAIR: u16 = 2;
const CONTROL_RECEIVE: u16 = 2;
const CONTROL_TRANSMIT: u16 = 3;

/// The most named ports. Each costs a thread here, and four interrupts' vectors there at most.
const MAX_PORTS: usize = 30;

/// As other devices of its kind have.
const MAX_QUEUE_SIZE: u16 = 1024;

/// A console, with further ports or alone.
pub struct Console {
    /// The console itself first; never empty.
    ports: Vec<Port>,
    /// With further ports.
    control: Option<Ports>,
    window: Option<Arc<Window>>,
    config_change: ConfigChange,
    /// What readers have missed, in bytes.
    missed: Arc<AtomicU64>,
    terminals: Vec<Terminal>,
}

impl Console {
    /// Opens what the command line names.
    ///
    /// # Errors
    /// [`OpenError`] when it can't be opened.
    pub fn open(options: &Options, config_change: ConfigChange) -> Result<Self, OpenError> {
        check_ports(options)?;
        let failed = |errno| OpenError::System { doing: "make an eventfd", source: errno };
        let names = options.port.iter().map(|port| port.name.clone());
        let control = (names.len() > 0).then(|| Ports::new(names)).transpose().map_err(failed)?;
        let outlet = outlets::open(&options.to(), "the console")?;
        let mut terminals = Vec::from_iter(terminal(None, outlet.as_ref()));
        let window = outlet.window().map(|size| {
            let window = Window::default();
            window.set(size);
            if let Some(control) = &control {
                control.resized(size);
            }
            Arc::new(window)
        });
        let missed = Arc::<AtomicU64>::default();
        let watcher = |id, window| PortWatcher {
            id,
            ports: control.clone(),
            window,
            config_change: config_change.clone(),
            missed: Arc::clone(&missed),
        };
        let mut ports = vec![Port::open(outlet, watcher(0, window.clone()), options.replay)?];
        for (id, port) in (1..).zip(&options.port) {
            let outlet = outlets::open(&port.to, &format!("port {}", port.name))?;
            terminals.extend(terminal(Some(&port.name), outlet.as_ref()));
            ports.push(Port::open(outlet, watcher(id, None), options.replay)?);
        }
        Ok(Self { ports, control, window, config_change, missed, terminals })
    }

    fn port(&self, index: u16) -> Result<&Port, DeviceError> {
        let pair = usize::from(index / PAIR);
        // The control queues are the second pair.
        let id = if pair == 0 { Some(0) } else { pair.checked_sub(1).filter(|&id| id > 0) };
        let port = id.and_then(|id| self.ports.get(id));
        port.ok_or_else(|| format!("there is no queue {index}").into())
    }
}

/// The pseudo-terminal that `outlet` is, if it is one.
fn terminal(port: Option<&String>, outlet: &dyn Outlet) -> Option<Terminal> {
    outlet.terminal().map(|path| Terminal { port: port.cloned(), path })
}

fn check_ports(options: &Options) -> Result<(), OpenError> {
    let count = options.port.len();
    if count > MAX_PORTS {
        return Err(OpenError::TooManyPorts { count, most: MAX_PORTS });
    }
    let mut names = HashSet::new();
    match options.port.iter().find(|port| !names.insert(&port.name)) {
        Some(port) => Err(OpenError::SameName { name: port.name.clone() }),
        None => Ok(()),
    }
}

impl Device for Console {
    fn identity(&self) -> Identity {
        let size = u64::from(self.window.is_some()) << VIRTIO_CONSOLE_F_SIZE;
        let several = u64::from(self.control.is_some()) << VIRTIO_CONSOLE_F_MULTIPORT;
        let control = u16::from(self.control.is_some());
        // At most 31 ports.
        let pairs = (self.ports.len() as u16).saturating_add(control);
        Identity {
            name: "console",
            device_type: VIRTIO_ID_CONSOLE,
            features: size | several,
            queues: pairs.saturating_mul(PAIR),
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
        space.extend((self.ports.len() as u32).to_le_bytes());
        space.extend(0_u32.to_le_bytes());
        space
    }

    fn write_config(&self, _offset: usize, _data: &[u8]) -> Result<(), ConfigRefused> {
        // Only emerg_wr may be written, and its feature is not offered.
        Err(ConfigRefused { field: "console configuration" })
    }

    fn open_queue(&self, index: u16, _features: u64) -> Result<Box<dyn Worker>, DeviceError> {
        match (index, &self.control) {
            (CONTROL_RECEIVE, Some(control)) => Ok(Box::new(ControlReceive(control.clone()))),
            (CONTROL_TRANSMIT, Some(control)) => {
                Ok(Box::new(ControlTransmit::new(control.clone())))
            }
            _ if index.is_multiple_of(PAIR) => {
                let port = self.port(index)?;
                // Linux looks at the window's size when it is told of a change, and only then.
                if index == 0 && self.window.is_some() {
                    self.config_change.announce();
                }
                Ok(Box::new(port.receive()))
            }
            _ => Ok(Box::new(self.port(index)?.transmit())),
        }
    }

    fn panel(&self) -> Panel<'_> {
        let missed = Counter {
            name: "console_missed_bytes",
            help: "Output that was forgotten before a reader came to it.",
            label: None,
            value: self.missed.load(Ordering::Relaxed),
        };
        let terminals = self.terminals.clone();
        Panel { counters: vec![missed], terminals, ..Panel::default() }
    }

    fn reset(&self) {
        self.ports.iter().for_each(Port::reset);
        self.control.iter().for_each(Ports::reset);
    }

    fn system_calls(&self) -> Vec<SystemCall> {
        let ioctl = |request| SystemCall::any(Sysno::ioctl).with(1, request);
        vec![
            // A user who leaves ends this process, and can end no other.
            SystemCall::any(Sysno::kill).with(0, std::process::id()).with(1, libc::SIGTERM),
            // The window's size, and the terminal's settings: read, and set back at the end.
            ioctl(libc::TIOCGWINSZ),
            ioctl(libc::TCGETS),
            ioctl(libc::TCSETS),
        ]
    }

    fn start(&self) -> Result<(), DeviceError> {
        self.ports.iter().try_for_each(Port::start).map_err(Into::into)
    }
}
