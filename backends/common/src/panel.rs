//! What can be read and turned on a device while it runs, and how the device is told. Who turns it is
//! not known here.

use std::path::PathBuf;

use serde::Serialize;

use crate::device::DeviceError;
use crate::limits::Limiter;

/// The outside of a device.
#[derive(Default)]
pub struct Panel<'a> {
    /// How fast it may be.
    pub limits: Vec<Limited<'a>>,
    /// How large it is, where it is a disk.
    pub disk: Option<&'a dyn Resize>,
    /// Whether its cable is plugged in, where it has one.
    pub link: Option<&'a dyn Link>,
    /// What it has counted beside what its queues have.
    pub counters: Vec<Counter>,
    /// The pseudo-terminals that it has made.
    pub terminals: Vec<Terminal>,
}

/// A pseudo-terminal that a device has made.
#[derive(Clone, Debug, Serialize)]
pub struct Terminal {
    /// The name of the port that it is of, if it is not the console's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Its name, such as `/dev/pts/7`.
    pub path: PathBuf,
}

/// Something with a limit, as users call it.
#[derive(Clone, Copy, Debug)]
pub struct Limited<'a> {
    /// What the names of its limits begin with: nothing, or such as `rx_`.
    pub prefix: &'static str,
    /// The name of the limit on operations, such as `iops`.
    pub operations: &'static str,
    /// What enforces it.
    pub limiter: &'a Limiter,
}

/// A disk that can become longer.
pub trait Resize {
    /// Its length in bytes.
    fn size(&self) -> u64;

    /// Makes it `size` bytes long; without one as long as what it is on has become. Tells the driver.
    ///
    /// # Errors
    /// Anything that keeps it from that; it is as long as before then.
    fn resize(&self, size: Option<u64>) -> Result<(), DeviceError>;
}

/// A cable.
pub trait Link {
    /// Whether it is plugged in.
    fn is_up(&self) -> bool;

    /// Plugs it in, or pulls it, and tells the driver.
    fn set(&self, up: bool);
}

/// Something counted.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    /// Its name, without what is in front of all of ours and behind all counters.
    pub name: &'static str,
    /// What is counted.
    pub help: &'static str,
    /// A label, such as a reason, and its value.
    pub label: Option<(&'static str, &'static str)>,
    /// How often it has happened.
    pub value: u64,
}
