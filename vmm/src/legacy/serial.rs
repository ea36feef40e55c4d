//! The first serial port, a 16550: early messages out, and a terminal's keys in.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

use crate::bus::BusDevice;
use crate::irq::Event;

/// Keys that wait here while the guest does not read: enough for what a person pastes.
const INPUT_LIMIT: usize = 4096;

/// The port's interrupt line.
struct Line(Arc<Event>);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.signal();
        Ok(())
    }
}

struct State {
    uart: Serial<Line, NoEvents, Box<dyn Write + Send>>,
    input: VecDeque<u8>,
    /// Whether the machine is gone, and with it whoever would read.
    closed: bool,
    /// Whether an error of the output was logged.
    failed: bool,
}

/// The serial port at eight ports from its base.
pub struct SerialPort {
    state: Mutex<State>,
    room: Condvar,
}

impl SerialPort {
    /// How many ports it answers at.
    pub const PORTS: u64 = 8;

    /// A serial port that prints to `output` and raises `interrupt`.
    pub fn new(interrupt: Arc<Event>, output: Box<dyn Write + Send>) -> Self {
        let uart = Serial::new(Line(interrupt), output);
        let state = State { uart, input: VecDeque::new(), closed: false, failed: false };
        Self { state: Mutex::new(state), room: Condvar::new() }
    }

    /// Hands `bytes` to the guest. Waits while it has [`INPUT_LIMIT`] bytes to read already.
    pub fn input(&self, bytes: &[u8]) {
        for chunk in bytes.chunks(INPUT_LIMIT) {
            let full =
                |state: &mut State| !state.closed && state.input.len() + chunk.len() > INPUT_LIMIT;
            let waited = self.room.wait_while(self.state(), full);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            if state.closed {
                return;
            }
            state.input.extend(chunk);
            state.refill();
        }
    }

    /// Nobody will read any more: whoever waits in [`input`](Self::input) returns.
    pub fn close(&self) {
        self.state().closed = true;
        self.room.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Moves what the receive FIFO has room for into it.
    fn refill(&mut self) {
        let room = self.uart.fifo_capacity().min(self.input.len());
        if room == 0 {
            return;
        }
        let next: Vec<u8> = self.input.iter().take(room).copied().collect();
        // In loopback mode the port takes nothing; the keys wait until it is over.
        if let Ok(taken) = self.uart.enqueue_raw_bytes(&next) {
            self.input.drain(..taken.min(room));
        }
    }
}

impl BusDevice for SerialPort {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut state = self.state();
        let ([byte], Ok(offset)) = (&mut *data, u8::try_from(offset)) else {
            return data.fill(0xff);
        };
        *byte = state.uart.read(offset);
        state.refill();
        self.room.notify_all();
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut state = self.state();
        let (&[byte], Ok(offset)) = (data, u8::try_from(offset)) else {
            return;
        };
        if let Err(error) = state.uart.write(offset, byte)
            && !state.failed
        {
            tracing::warn!("the serial port's output is lost from here on: {error}");
            state.failed = true;
        }
    }
}

#[cfg(test)]
#[path = "serial_test.rs"]
mod tests;
