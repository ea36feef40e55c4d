//! What is left of the PC around the processors: serial port, clock, and the ways to switch it off.
//!
//! Devices at fixed ports, each of one small register set. Nothing here is on a data path.

mod i8042;
mod power;
mod rtc;
mod serial;

use std::sync::Arc;

pub use i8042::I8042;
pub use power::{OFFSETS as POWER_REGISTERS, PowerRegisters};
pub(crate) use rtc::CENTURY as RTC_CENTURY;
pub use rtc::Rtc;
pub use serial::SerialPort;

/// What the guest asks of the machine's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerRequest {
    /// Off: ACPI's S5.
    Off,
    /// Reset: the machine starts anew.
    Reset,
}

/// Told of each request, on the vCPU thread that made it.
pub type OnPower = Arc<dyn Fn(PowerRequest) + Send + Sync>;
