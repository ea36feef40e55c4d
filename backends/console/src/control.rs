//! What driver and device tell each other of ports (virtio 1.3 §5.3.6), as state: which messages are
//! due follows from it, so that no flood of messages makes it grow. It reads and writes no queue.
//!
//! ```text
//!  driver: DEVICE_READY ─► device: DEVICE_ADD for each port
//!  driver: PORT_READY   ─► device: CONSOLE_PORT or PORT_NAME, RESIZE, PORT_OPEN as it is
//!  driver: PORT_OPEN    ─► the port's gate: what is typed before goes nowhere in the guest
//! ```

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use crate::window::Size;

/// virtio 1.3 §5.3.6.1: id, event and value.
pub(crate) const HEADER: usize = 8;

const DEVICE_READY: u16 = 0;
const DEVICE_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const RESIZE: u16 = 5;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// The messages to a driver, in the order in which they are due.
const EVENTS: [u16; 5] = [DEVICE_ADD, CONSOLE_PORT, PORT_NAME, RESIZE, PORT_OPEN];

/// What is known of one port.
#[derive(Debug)]
struct Port {
    /// Empty for the console.
    name: String,
    /// The driver has it.
    ready: bool,
    /// Somebody is attached outside.
    attached: bool,
    /// Somebody has it open in the guest.
    guest_open: bool,
    /// A bit for each of [`EVENTS`], by its number.
    due: u16,
}

/// What driver and device know of each other.
#[derive(Debug)]
pub(crate) struct Control {
    ports: Vec<Port>,
    size: Option<Size>,
    /// The driver has said that it is there.
    started: bool,
}

impl Control {
    /// The control of a console and of ports with `names`.
    pub(crate) fn new(names: impl Iterator<Item = String>) -> Self {
        let port = |name| Port { name, ready: false, attached: false, guest_open: false, due: 0 };
        let ports = std::iter::once(String::new()).chain(names).map(port).collect();
        Self { ports, size: None, started: false }
    }

    /// The driver is there no more; what is outside stays.
    pub(crate) fn reset(&mut self) {
        self.started = false;
        for port in &mut self.ports {
            (port.ready, port.guest_open, port.due) = (false, false, 0);
        }
    }

    /// The driver has long been there, and another process has spoken with it. It is told everything
    /// again, which it takes as no news. What it said of ports that are open is not known: they are
    /// taken for open.
    pub(crate) fn resume(&mut self) {
        if self.started {
            return;
        }
        self.start();
        for port in &mut self.ports {
            (port.ready, port.guest_open) = (true, true);
            port.due |= bit(PORT_OPEN);
        }
    }

    /// Takes a message of the driver. False when it makes no sense.
    pub(crate) fn take(&mut self, message: [u8; HEADER]) -> bool {
        let [i0, i1, i2, i3, e0, e1, v0, v1] = message;
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let (event, value) = (u16::from_le_bytes([e0, e1]), u16::from_le_bytes([v0, v1]));
        if event == DEVICE_READY {
            self.reset();
            if value == 1 {
                self.start();
            }
            return true;
        }
        // A driver that has not said that it is there knows of no ports.
        let started = self.started;
        let Some(port) = self.ports.get_mut(id as usize).filter(|_| started) else { return false };
        match event {
            PORT_READY => {
                port.ready = value == 1;
                let tell = [CONSOLE_PORT, PORT_NAME, RESIZE, PORT_OPEN];
                port.due =
                    if port.ready { tell.into_iter().map(bit).fold(0, |a, b| a | b) } else { 0 };
            }
            PORT_OPEN => port.guest_open = value == 1,
            _ => return false,
        }
        true
    }

    /// Somebody is attached to port `id`, or nobody is any more.
    pub(crate) fn attached(&mut self, id: usize, attached: bool) {
        if let Some(port) = self.ports.get_mut(id) {
            port.attached = attached;
            port.due |= if port.ready { bit(PORT_OPEN) } else { 0 };
        }
    }

    /// The console's window has changed.
    pub(crate) fn resized(&mut self, size: Size) {
        self.size = Some(size);
        if let Some(port) = self.ports.first_mut().filter(|port| port.ready) {
            port.due |= bit(RESIZE);
        }
    }

    /// Whether what is typed at port `id` reaches anybody in the guest.
    pub(crate) fn is_open(&self, id: usize) -> bool {
        id == 0 || self.ports.get(id).is_some_and(|port| port.guest_open)
    }

    /// Whether a message is due.
    pub(crate) fn is_due(&self) -> bool {
        self.ports.iter().any(|port| port.due != 0)
    }

    /// The message that is due next, as it goes over the queue.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let (id, port) = (0_u32..).zip(&mut self.ports).find(|(_, port)| port.due != 0)?;
            let event = EVENTS.into_iter().find(|&event| port.due & bit(event) != 0)?;
            port.due &= !bit(event);
            let console = id == 0;
            let message = match event {
                DEVICE_ADD => message(id, event, 1, &[]),
                CONSOLE_PORT if console => message(id, event, 1, &[]),
                PORT_NAME if !console => message(id, event, 1, port.name.as_bytes()),
                RESIZE if console => match self.size {
                    Some(size) => message(id, event, 0, &resize(size)),
                    None => continue,
                },
                // A console is there for its guest whoever looks at it.
                PORT_OPEN => message(id, event, u16::from(console || port.attached), &[]),
                _ => continue,
            };
            return Some(message);
        }
    }

    fn start(&mut self) {
        self.started = true;
        for port in &mut self.ports {
            port.due = bit(DEVICE_ADD);
        }
    }
}

/// A message's bit among those that are due; events are numbers below 8.
fn bit(event: u16) -> u16 {
    1_u16.checked_shl(event.into()).unwrap_or(0)
}

fn message(id: u32, event: u16, value: u16, payload: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], &event.to_le_bytes()[..], &value.to_le_bytes()[..], payload].concat()
}

/// virtio 1.3 §5.3.6.1: columns first. Linux before 6.15 reads the rows first.
fn resize(size: Size) -> [u8; 4] {
    let ([c0, c1], [r0, r1]) = (size.columns.to_le_bytes(), size.rows.to_le_bytes());
    [c0, c1, r0, r1]
}

#[cfg(test)]
#[path = "control_test.rs"]
mod tests;
