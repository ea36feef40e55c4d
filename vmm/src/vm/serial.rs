//! What the guest's serial port is connected to, over all boots: the terminal, a file or nothing.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::error::VmError;
use super::terminal::RawTerminal;
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
    /// Opens the file, or makes the terminal raw and starts to read from it.
    pub(super) fn open(config: &SerialConfig) -> Result<Self, VmError> {
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
                thread::Builder::new()
                    .name("serial-input".to_owned())
                    .spawn(move || type_into(&keys))
                    .map_err(|source| VmError::System { doing: "start a thread", source })?;
                To::Terminal { plugged, _raw: RawTerminal::enter() }
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

/// Carries what is typed to whichever port is plugged in.
fn type_into(plugged: &Plugged) {
    let mut keys = [0; 256];
    while let Ok(count @ 1..) = io::stdin().read(&mut keys) {
        let port = plugged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let (Some(port), Some(typed)) = (port, keys.get(..count)) {
            port.input(typed);
        }
    }
}
