//! What the guest's serial port is connected to, over all boots: the terminal, a file or nothing.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use atoll_terminal::{Escape, HINT, RawTerminal};
use nix::sys::signal::Signal;

use super::error::VmError;
use super::events::Event as Happening;
use crate::config::SerialConfig;
use crate::irq::Event;
use crate::legacy::SerialPort;

/// One serial port's other end.
pub(super) struct SerialLine {
    to: To,
}

enum To {
    Terminal { plugged: Plugged, _raw: Option<RawTerminal> },
    File(std::fs::File),
    Nothing,
}

/// The port of the boot that runs now.
type Plugged = Arc<Mutex<Option<Arc<SerialPort>>>>;

impl SerialLine {
    /// Opens the file, or makes the terminal raw and starts to read from it; `main` hears when its user
    /// wants to leave.
    pub(super) fn open(config: &SerialConfig, main: Sender<Happening>) -> Result<Self, VmError> {
        let to = match config {
            SerialConfig::Off => To::Nothing,
            SerialConfig::File(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                let failed = |source| VmError::SerialFile { path: path.clone(), source };
                To::File(file.map_err(failed)?)
            }
            SerialConfig::Stdio => {
                let plugged = Plugged::default();
                let keys = Arc::clone(&plugged);
                let raw = RawTerminal::enter();
                // What is no terminal is the guest's as it is.
                let escape = raw.as_ref().map(|_raw| (Escape::default(), main));
                if escape.is_some() {
                    eprint!("atoll: {HINT}\r\n");
                }
                thread::Builder::new()
                    .name("serial-input".to_owned())
                    .spawn(move || type_into(&keys, escape))
                    .map_err(|source| VmError::System { doing: "start a thread", source })?;
                To::Terminal { plugged, _raw: raw }
            }
        };
        Ok(Self { to })
    }

    /// Whether there is a serial port at all.
    pub(super) fn exists(&self) -> bool {
        !matches!(self.to, To::Nothing)
    }

    /// The port for a new boot, in place of the last one's; `None` where there is to be none.
    pub(super) fn plug(&self, interrupt: Arc<Event>) -> Result<Option<Arc<SerialPort>>, VmError> {
        let output: Box<dyn Write + Send> = match &self.to {
            To::Nothing => return Ok(None),
            To::Terminal { .. } => Box::new(io::stdout()),
            To::File(file) => Box::new(file.try_clone().map_err(|source| VmError::System {
                doing: "hand the serial port its file",
                source,
            })?),
        };
        let port = Arc::new(SerialPort::new(interrupt, output));
        if let To::Terminal { plugged, .. } = &self.to {
            let mut plugged = plugged.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(last) = plugged.replace(Arc::clone(&port)) {
                last.close();
            }
        }
        Ok(Some(port))
    }
}

/// Carries what is typed to whichever port is plugged in. To leave is what Ctrl-C is elsewhere.
fn type_into(plugged: &Plugged, mut escape: Option<(Escape, Sender<Happening>)>) {
    let mut typed = [0; 256];
    while let Ok(count @ 1..) = io::stdin().read(&mut typed) {
        let typed = typed.get(..count).unwrap_or_default();
        let mut keys = Vec::new();
        if let Some((escape, main)) = &mut escape {
            if escape.take(typed, &mut keys) {
                let _ended = main.send(Happening::Signal(Signal::SIGINT));
            }
        } else {
            keys.extend_from_slice(typed);
        }
        let port = plugged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(port) = port {
            port.input(&keys);
        }
    }
}
