//! What answers in a virtio function's BAR: it takes accesses to the pure registers, and carries
//! out what they ask for.
//!
//! Kicks normally never come here: while the BAR is mapped the kernel turns them into events.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::layout::{NOTIFY_MULTIPLIER, Region};
use super::transport::{Effect, Transport};
use super::vectors::Vectors;
use super::{DeviceEvents, VirtioDevice};
use crate::bus::BusDevice;
use crate::irq::{Event, IrqError, MsiRoutes};

struct Registers {
    transport: Transport,
    vectors: Vectors,
}

/// The BAR of one virtio function.
pub(super) struct Bar {
    device: Arc<dyn VirtioDevice>,
    /// Signalled to tell the driver that the configuration changed.
    config_call: Arc<Event>,
    registers: Mutex<Registers>,
}

impl Bar {
    pub(super) fn new(
        device: Arc<dyn VirtioDevice>,
        routes: Arc<dyn MsiRoutes>,
    ) -> Result<Self, IrqError> {
        let config_call = Arc::new(Event::new().map_err(IrqError::Event)?);
        let queues = device.queues();
        let calls = queues.iter().map(|queue| &queue.call).chain([&config_call]).map(Arc::clone);
        let vectors = Vectors::new(device.id(), routes, calls)?;
        let sizes: Vec<u16> = queues.iter().map(|queue| queue.max_size).collect();
        let transport = Transport::new(device.features(), &sizes, vectors.count(), device.config());
        Ok(Self { device, config_call, registers: Mutex::new(Registers { transport, vectors }) })
    }

    /// How many interrupt vectors the function has.
    pub(super) fn vectors(&self) -> u16 {
        self.registers().vectors.count()
    }

    /// MSI-X message control was written.
    pub(super) fn set_msix_control(&self, control: u16) {
        self.registers().vectors.set_control(control);
    }

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out `effect` under the lock, so that effects happen in the order of the writes.
    fn carry_out(&self, registers: &mut Registers, effect: Effect) {
        match effect {
            Effect::Route(source, vector) => registers.vectors.assign(source, vector),
            Effect::Start(activation) => self.device.start(activation),
            Effect::Reset { stop } => {
                registers.vectors.unassign_all();
                self.config_call.drain();
                if stop {
                    self.device.reset();
                }
            }
            Effect::NeedsReset => self.config_call.signal(),
            Effect::WriteConfig { offset, data } => self.device.write_config(offset, &data),
        }
    }
}

impl BusDevice for Bar {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut registers = self.registers();
        match Region::at(offset) {
            Region::Common(at) => registers.transport.read_common(at, data),
            Region::Isr(at) => {
                data.fill(0);
                if let (0, Some(first)) = (at, data.first_mut()) {
                    *first = registers.transport.read_isr();
                }
            }
            Region::Device(at) => registers.transport.read_config(at, data),
            Region::Notify(_) => data.fill(0),
            Region::MsixTable(at) => registers.vectors.read_table(at, data),
            Region::MsixPending(at) => registers.vectors.read_pending(at, data),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut registers = self.registers();
        let effect = match Region::at(offset) {
            Region::Common(at) => registers.transport.write_common(at, data),
            Region::Device(at) => registers.transport.write_config(at, data),
            Region::Notify(at) => {
                let queue = at.checked_div(NOTIFY_MULTIPLIER.into());
                if let Some(port) =
                    queue.and_then(|queue| self.device.queues().get(usize::try_from(queue).ok()?))
                {
                    port.kick.signal();
                }
                None
            }
            Region::MsixTable(at) => {
                registers.vectors.write_table(at, data);
                None
            }
            Region::Isr(_) | Region::MsixPending(_) => None,
        };
        if let Some(effect) = effect {
            self.carry_out(&mut registers, effect);
        }
    }
}

impl DeviceEvents for Bar {
    fn reset_done(&self) {
        // A call that crossed the reset belongs to rings that are gone.
        for queue in self.device.queues() {
            queue.call.drain();
        }
        self.registers().transport.reset_done();
    }

    fn config_changed(&self, config: Vec<u8>, announce: bool) {
        if self.registers().transport.config_changed(config, announce) {
            self.config_call.signal();
        }
    }

    fn needs_reset(&self) {
        if self.registers().transport.needs_reset() {
            self.config_call.signal();
        }
    }
}

#[cfg(test)]
#[path = "bar_test.rs"]
mod tests;
