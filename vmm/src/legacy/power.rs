//! The registers of hardware-reduced ACPI: sleep, reset, and the events of the generic event
//! device. Which AML reads them is `acpi`'s business.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{OnPower, PowerRequest};
use crate::bus::BusDevice;
use crate::irq::Event;

/// Where each register is, from the first; one byte each.
#[derive(Debug)]
pub struct Offsets {
    /// Sleep control (ACPI 6.5 §4.8.3.7): a write with SLP_EN set and S5's type powers off.
    pub sleep_control: u16,
    /// Sleep status (ACPI 6.5 §4.8.3.7).
    pub sleep_status: u16,
    /// A write of [`PowerRegisters::RESET_VALUE`] resets.
    pub reset: u16,
    /// The events that happened since the last read, which clears them.
    pub events: u16,
}

/// Where each register is, from the first.
pub const OFFSETS: Offsets = Offsets { sleep_control: 0, sleep_status: 1, reset: 2, events: 3 };

/// SLP_EN and SLP_TYPx in the sleep control register (ACPI 6.5, table 4.20).
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0b111;

/// The registers, and the power button.
pub struct PowerRegisters {
    power: OnPower,
    events: AtomicU8,
    interrupt: Arc<Event>,
}

impl PowerRegisters {
    /// How many bytes there are in all.
    pub const LEN: u64 = 4;
    /// The type of sleep that S5 is, as `\_S5` says.
    pub const S5_TYPE: u8 = 5;
    /// What resets, as the FADT says.
    pub const RESET_VALUE: u8 = 1;
    /// The bit of [`events`](Offsets::events) for the power button.
    pub const POWER_BUTTON: u8 = 1;

    /// Registers that ask `power` for what the guest wants, and raise `interrupt` when the button
    /// is pressed.
    pub fn new(power: OnPower, interrupt: Arc<Event>) -> Self {
        Self { power, events: AtomicU8::new(0), interrupt }
    }

    /// Presses the power button. What the guest does of it is up to the guest.
    pub fn press_power_button(&self) {
        self.events.fetch_or(Self::POWER_BUTTON, Ordering::SeqCst);
        self.interrupt.signal();
    }
}

impl BusDevice for PowerRegisters {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let [byte] = data
            && offset == u64::from(OFFSETS.events)
        {
            *byte = self.events.swap(0, Ordering::SeqCst);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let &[value] = data else { return };
        let sleep_type = (value >> SLEEP_TYPE_SHIFT) & SLEEP_TYPE_MASK;
        let s5 = value & SLEEP_ENABLE != 0 && sleep_type == Self::S5_TYPE;
        if offset == u64::from(OFFSETS.sleep_control) && s5 {
            (self.power)(PowerRequest::Off);
        } else if offset == u64::from(OFFSETS.reset) && value == Self::RESET_VALUE {
            (self.power)(PowerRequest::Reset);
        }
    }
}

#[cfg(test)]
#[path = "power_test.rs"]
mod tests;
