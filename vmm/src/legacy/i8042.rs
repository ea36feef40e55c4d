//! The PC's keyboard controller, of which only the line to the processor's reset pin is left.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use vm_superio::{I8042Device, Trigger};

use super::{OnPower, PowerRequest};
use crate::bus::BusDevice;

/// The reset pin.
struct ResetPin(OnPower);

impl Trigger for ResetPin {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        (self.0)(PowerRequest::Reset);
        Ok(())
    }
}

/// The i8042, at ports 0x60 to 0x64.
pub struct I8042(Mutex<I8042Device<ResetPin>>);

impl I8042 {
    /// How many ports it answers at, though only the first and the last are its own.
    pub const PORTS: u64 = 5;

    /// A controller that asks `power` for the reset.
    pub fn new(power: OnPower) -> Self {
        Self(Mutex::new(I8042Device::new(ResetPin(power))))
    }
}

impl BusDevice for I8042 {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut device = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let ([byte], Ok(offset)) = (data, u8::try_from(offset)) {
            *byte = device.read(offset);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut device = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let ([byte], Ok(offset)) = (data, u8::try_from(offset)) {
            let Ok(()) = device.write(offset, *byte);
        }
    }
}

#[cfg(test)]
#[path = "i8042_test.rs"]
mod tests;
