//! A virtual machine's life: from what the user asked for, over any number of guest boots, to the
//! exit code.
//!
//! Guest memory and devices live as long as the process; what a reset button resets is a
//! [`Machine`](machine::Machine), built anew for every boot.

mod devices;
mod error;
mod events;
mod machine;
mod serial;
mod signals;
mod terminal;

use std::sync::Arc;

use crate::arch::{Cpuid, kvm};
use crate::boot::BootFiles;
use crate::config::VmConfig;
use crate::memory::{GuestRam, MemorySpec};
use crate::vcpu::Exit;

pub use error::VmError;

use devices::Devices;
use events::{End, Events};
use machine::{Machine, Parts};
use serial::SerialLine;

/// Runs the machine that `config` describes until its guest powers off, or it is told to stop.
///
/// Call it on the main thread, before any other is started.
///
/// # Errors
/// [`VmError`], a chain of sentences from what was being done to what went wrong.
pub fn run(config: &VmConfig) -> Result<(), VmError> {
    let events = Events::watch()?;
    // In this order what costs nothing is refused first, and nothing is started in vain.
    let kvm = kvm::open(config.cpus)?;
    let cpuid = Cpuid::supported(&kvm, config.cpus)?;
    let ram = Arc::new(GuestRam::new(&memory_spec(config))?);
    let boot = BootFiles::open(&config.kernel, config.initrd.as_deref())?;
    let serial = SerialLine::open(&config.serial)?;
    let mut parts = Parts { kvm, cpuid, ram, boot, config, serial, devices: Devices::default() };
    // A kernel that can't be loaded is found out before a device process is started for it.
    parts.load()?;
    let Some(devices) = Devices::start(config, &parts.ram, &events)? else {
        tracing::warn!("stopped by a signal before all devices were there");
        return Ok(());
    };
    parts.devices = devices;
    let ended = boots(&mut parts, &events);
    parts.devices.stop();
    ended
}

/// One boot after another, until one ends in something else than a reset.
fn boots(parts: &mut Parts<'_>, events: &Events) -> Result<(), VmError> {
    loop {
        let entry = parts.load()?;
        let machine = Machine::start(parts, entry, events.exits())?;
        let end = events.wait_for_end(&machine, parts.config.grace, &mut parts.devices);
        machine.stop_vcpus();
        match end {
            End::Guest(Exit::PowerOff) => return Ok(()),
            End::Guest(Exit::Crash(crash)) => return Err(crash.into()),
            End::Guest(Exit::Reset) => {
                tracing::info!("the guest reset itself");
                parts.devices.quiesce();
                drop(machine);
                parts.ram.clear()?;
            }
            End::Stopped(why) => {
                tracing::warn!("stopped {why}, before the guest had powered off");
                return Ok(());
            }
        }
    }
}

fn memory_spec(config: &VmConfig) -> MemorySpec {
    let memory = &config.memory;
    MemorySpec {
        size: memory.size.0,
        hugepages: memory.hugepages.map(|size| size.0),
        prefault: memory.prefault,
    }
}
