//! A virtual machine's life: from what the user asked for, over any number of guest boots, to the
//! exit code.
//!
//! Guest memory and devices live as long as the process; what a reset button resets is a
//! [`Machine`](machine::Machine), built anew for every boot.

mod brake;
mod consoles;
mod controls;
mod devices;
mod error;
mod events;
mod machine;
mod metrics;
mod serial;
mod service;
mod signals;

use std::sync::Arc;

use tap::TapFallible;

use crate::arch::{Cpuid, kvm};
use crate::boot::BootFiles;
use crate::config::VmConfig;
use crate::control::{self, EventLog};
use crate::memory::{GuestRam, MemorySpec};
use crate::vcpu::Exit;

pub use error::{VmError, sentence};

use controls::Controls;
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
    // Each queue has two eventfds: the usual 1024 would not do for two devices of as many queues as
    // there can be. Who has few needs no more.
    let _few = rlimit::increase_nofile_limit(u64::MAX)
        .tap_err(|error| tracing::debug!("the limit of open files stays as it is: {error}"));
    let events = Events::watch()?;
    // In this order what costs nothing is refused first, and nothing is started in vain.
    let kvm = kvm::open(config.cpus)?;
    let cpuid = Cpuid::supported(&kvm, config.cpus)?;
    let ram = Arc::new(GuestRam::new(&memory_spec(config))?);
    let boot = BootFiles::open(&config.kernel, config.initrd.as_deref())?;
    let serial = SerialLine::open(&config.serial, events.sender())?;
    let socket = control::Socket::open(config.control.as_deref())?;
    let mut parts = Parts { kvm, cpuid, ram, boot, config, serial, devices: Devices::default() };
    // A kernel that can't be loaded is found out before a device process is started for it.
    parts.load()?;
    let log = EventLog::new()
        .map_err(|source| VmError::System { doing: "make an eventfd for events", source })?;
    let log = Arc::new(log);
    let controls = Arc::new(Controls::new(config, Arc::clone(&log), events.sender()));
    // Until the very end, so that the end is told as well.
    let _server = match socket {
        Some(socket) => Some(control::Server::start(socket, controls.clone(), log)?),
        None => None,
    };
    let Some(devices) = Devices::start(config, &parts.ram, &events, controls.clone())? else {
        tracing::warn!("stopped by a signal before all devices were there");
        return Ok(());
    };
    controls.connected(devices.remotes(), devices.lines());
    parts.devices = devices;
    let ended = boots(&mut parts, &events, &controls);
    service::stopping();
    parts.devices.stop();
    controls.ended(&match &ended {
        Ok(why) => (*why).to_owned(),
        Err(error) => sentence(error),
    });
    ended.map(drop)
}

/// One boot after another, until one ends in something else than a reset; says in what.
fn boots(
    parts: &mut Parts<'_>,
    events: &Events,
    controls: &Controls,
) -> Result<&'static str, VmError> {
    let mut first = true;
    loop {
        let entry = parts.load()?;
        let machine = Machine::start(parts, entry, events.exits())?;
        controls.booted(machine.vcpus());
        if std::mem::take(&mut first) {
            service::ready();
        }
        let end = events.wait_for_end(&machine, parts.config.grace, controls, &parts.devices);
        controls.halted();
        machine.stop_vcpus();
        match end {
            End::Guest(Exit::PowerOff) => return Ok("the guest powered off"),
            End::Guest(Exit::Crash(crash)) => return Err(crash.into()),
            End::Guest(Exit::Reset) => {
                tracing::info!("the guest reset itself");
                controls.reset();
                parts.devices.quiesce();
                drop(machine);
                parts.ram.clear()?;
            }
            End::Stopped(why) => {
                tracing::warn!("stopped {why}, before the guest had powered off");
                return Ok("it was stopped before the guest had powered off");
            }
            End::Device(error) => return Err(error),
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
