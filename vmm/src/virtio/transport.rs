//! The virtio-pci transport as a pure state machine: registers in, effects out, no I/O
//! (virtio 1.3 §4.1.4.3 to §4.1.4.6, §2.1, §3.1).
//!
//! ```text
//!            DRIVER_OK                  status = 0
//!   Idle ───────────────► Running ───────────────────► Resetting
//!    ▲ ▲  Effect::Start      │  Effect::Reset(stop)        │
//!    │ └── status = 0 ──┐    │                             │
//!    └─ Effect::Reset ──┘    └── needs_reset(): the same,  │
//!    ▲                           NEEDS_RESET in status     │
//!    └────────────────────────────────── reset_done() ─────┘
//! ```
//!
//! While resetting, device_status stays as it was and writes are ignored: the driver polls until it
//! reads 0 (§2.4.2, §4.1.4.3.2), which it does once the device has let go of the rings. Accesses
//! that the specification does not define change nothing and read what the registers hold.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};

use super::{Activation, Ring};

/// Bytes of the common configuration structure, up to and including queue_reset.
pub(super) const COMMON_CONFIG_SIZE: usize = 60;

/// "No vector", in both directions (virtio 1.3 §4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;

const ACKNOWLEDGE: u8 = VIRTIO_CONFIG_S_ACKNOWLEDGE as u8;
const DRIVER: u8 = VIRTIO_CONFIG_S_DRIVER as u8;
const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;
const NEEDS_RESET: u8 = VIRTIO_CONFIG_S_NEEDS_RESET as u8;
const FAILED: u8 = VIRTIO_CONFIG_S_FAILED as u8;

/// ISR status bit 1: configuration change (§4.1.4.5). Bit 0, queues, is for devices without MSI-X.
const ISR_CONFIG: u8 = 1 << 1;

/// Offsets in the common configuration structure (§4.1.4.3).
mod field {
    pub(super) const DEVICE_FEATURE_SELECT: u64 = 0;
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 8;
    pub(super) const DRIVER_FEATURE: u64 = 12;
    pub(super) const CONFIG_MSIX_VECTOR: u64 = 16;
    pub(super) const DEVICE_STATUS: u64 = 20;
    pub(super) const QUEUE_SELECT: u64 = 22;
    pub(super) const QUEUE_SIZE: u64 = 24;
    pub(super) const QUEUE_MSIX_VECTOR: u64 = 26;
    pub(super) const QUEUE_ENABLE: u64 = 28;
    pub(super) const QUEUE_DESC: u64 = 32;
    pub(super) const QUEUE_DESC_HIGH: u64 = 36;
    pub(super) const QUEUE_DRIVER: u64 = 40;
    pub(super) const QUEUE_DRIVER_HIGH: u64 = 44;
    pub(super) const QUEUE_DEVICE: u64 = 48;
    pub(super) const QUEUE_DEVICE_HIGH: u64 = 52;
}

/// What raises an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Config,
    Queue(u16),
}

/// What a write asks of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Route this source to another vector, or to none.
    Route(Source, Option<u16>),
    /// Start the device.
    Start(Activation),
    /// Route all sources to no vector; with `stop`, stop the device, then [`Transport::reset_done`].
    Reset { stop: bool },
    /// Tell the driver that device_status changed, by a configuration change notification.
    NeedsReset,
    /// Write these bytes of device-specific configuration.
    WriteConfig { offset: usize, data: Vec<u8> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    Resetting,
}

#[derive(Clone, Debug)]
struct Queue {
    max_size: u16,
    size: u16,
    vector: u16,
    enabled: bool,
    desc: u64,
    avail: u64,
    used: u64,
}

impl Queue {
    fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: max_size,
            vector: NO_VECTOR,
            enabled: false,
            desc: 0,
            avail: 0,
            used: 0,
        }
    }

    /// virtio 1.3 §2.7: the alignment that each part of a split ring must have.
    fn is_aligned(&self) -> bool {
        self.desc & 0xf == 0 && self.avail & 0x1 == 0 && self.used & 0x3 == 0
    }
}

/// Registers of one virtio function.
pub(super) struct Transport {
    offered: u64,
    accepted: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    status: u8,
    phase: Phase,
    isr: u8,
    generation: u8,
    /// Interrupt vectors that exist.
    vectors: u16,
    config_vector: u16,
    queue_select: u16,
    queues: Vec<Queue>,
    config: Vec<u8>,
}

impl Transport {
    /// A device just after reset.
    pub(super) fn new(offered: u64, queue_sizes: &[u16], vectors: u16, config: Vec<u8>) -> Self {
        Self {
            offered,
            accepted: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            status: 0,
            phase: Phase::Idle,
            isr: 0,
            generation: 0,
            vectors,
            config_vector: NO_VECTOR,
            queue_select: 0,
            queues: queue_sizes.iter().copied().map(Queue::new).collect(),
            config,
        }
    }

    /// Reads common configuration; zeros beyond its end.
    pub(super) fn read_common(&self, offset: u64, data: &mut [u8]) {
        copy_from(&self.common(), offset, data);
    }

    /// Writes common configuration. Only a field's own width counts, or half of a 64-bit field
    /// (§4.1.3.1); 64-bit writes of a whole field are taken as well.
    pub(super) fn write_common(&mut self, offset: u64, data: &[u8]) -> Option<Effect> {
        if self.phase == Phase::Resetting {
            return None;
        }
        match *data {
            [byte] => self.write_u8(offset, byte),
            [a, b] => self.write_u16(offset, u16::from_le_bytes([a, b])),
            [a, b, c, d] => {
                self.write_u32(offset, u32::from_le_bytes([a, b, c, d]));
                None
            }
            [a, b, c, d, e, f, g, h] => {
                if matches!(offset, field::QUEUE_DESC | field::QUEUE_DRIVER | field::QUEUE_DEVICE) {
                    self.write_u32(offset, u32::from_le_bytes([a, b, c, d]));
                    self.write_u32(offset.wrapping_add(4), u32::from_le_bytes([e, f, g, h]));
                }
                None
            }
            _ => None,
        }
    }

    /// Reads ISR status, which clears it (§4.1.4.5).
    pub(super) fn read_isr(&mut self) -> u8 {
        std::mem::take(&mut self.isr)
    }

    /// Reads device-specific configuration; zeros beyond its end.
    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_from(&self.config, offset, data);
    }

    /// Writes device-specific configuration, when all of it exists and a driver is there (§2.5).
    pub(super) fn write_config(&mut self, offset: u64, data: &[u8]) -> Option<Effect> {
        if self.phase == Phase::Resetting || self.status & DRIVER == 0 {
            return None;
        }
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(data.len())?;
        self.config.get_mut(offset..end)?.copy_from_slice(data);
        Some(Effect::WriteConfig { offset, data: data.to_vec() })
    }

    /// The device has stopped: everything is as after power-on (§2.4).
    pub(super) fn reset_done(&mut self) {
        if self.phase == Phase::Resetting {
            self.clear();
        }
    }

    /// The device's configuration space has new contents. Whether the driver is to be told now.
    pub(super) fn config_changed(&mut self, config: Vec<u8>, announce: bool) -> bool {
        if config != self.config {
            // §4.1.4.3.1: a driver that read half of the old finds another generation.
            self.generation = self.generation.wrapping_add(1);
            self.config = config;
        }
        announce && self.announce()
    }

    /// The device failed. Whether the driver is to be told now.
    pub(super) fn needs_reset(&mut self) -> bool {
        self.status |= NEEDS_RESET;
        self.announce()
    }

    /// §4.1.4.5.1: the ISR bit stands before the notification goes out, and only a driver that
    /// is running gets one (§2.1.2, §3.1).
    fn announce(&mut self) -> bool {
        let driver_listens = self.phase == Phase::Running;
        if driver_listens {
            self.isr |= ISR_CONFIG;
        }
        driver_listens
    }

    fn common(&self) -> [u8; COMMON_CONFIG_SIZE] {
        let mut registers = [0; COMMON_CONFIG_SIZE];
        let queue = self.queues.get(usize::from(self.queue_select));
        let queues = u16::try_from(self.queues.len()).unwrap_or(u16::MAX);
        let fields: [&[u8]; 17] = [
            &self.device_feature_select.to_le_bytes(),
            &half(self.offered, self.device_feature_select).to_le_bytes(),
            &self.driver_feature_select.to_le_bytes(),
            &half(self.accepted, self.driver_feature_select).to_le_bytes(),
            &self.config_vector.to_le_bytes(),
            &queues.to_le_bytes(),
            &[self.status],
            &[self.generation],
            &self.queue_select.to_le_bytes(),
            // §4.1.4.3.1: a queue that does not exist has size 0.
            &queue.map_or(0, |queue| queue.size).to_le_bytes(),
            &queue.map_or(NO_VECTOR, |queue| queue.vector).to_le_bytes(),
            &queue.map_or(0, |queue| u16::from(queue.enabled)).to_le_bytes(),
            // queue_notify_off: each queue has an address of its own.
            &queue.map_or(0, |_| self.queue_select).to_le_bytes(),
            &queue.map_or(0, |queue| queue.desc).to_le_bytes(),
            &queue.map_or(0, |queue| queue.avail).to_le_bytes(),
            &queue.map_or(0, |queue| queue.used).to_le_bytes(),
            // queue_notif_config_data and queue_reset belong to features that are not offered.
            &[0; 4],
        ];
        for (register, &byte) in registers.iter_mut().zip(fields.into_iter().flatten()) {
            *register = byte;
        }
        registers
    }

    fn write_u8(&mut self, offset: u64, value: u8) -> Option<Effect> {
        match (offset, value) {
            (field::DEVICE_STATUS, 0) => Some(self.reset()),
            (field::DEVICE_STATUS, status) => self.add_status(status),
            _ => None,
        }
    }

    fn write_u16(&mut self, offset: u64, value: u16) -> Option<Effect> {
        match offset {
            field::CONFIG_MSIX_VECTOR => {
                self.config_vector = self.existing(value);
                Some(Effect::Route(Source::Config, vector(self.config_vector)))
            }
            field::QUEUE_SELECT => {
                self.queue_select = value;
                None
            }
            field::QUEUE_MSIX_VECTOR => {
                let value = self.existing(value);
                let index = self.queue_select;
                self.queues.get_mut(usize::from(index))?.vector = value;
                Some(Effect::Route(Source::Queue(index), vector(value)))
            }
            field::QUEUE_SIZE => {
                let queue = self.idle_queue()?;
                if value.is_power_of_two() && value <= queue.max_size {
                    queue.size = value;
                }
                None
            }
            field::QUEUE_ENABLE => {
                // §4.1.4.3.2: the driver must not write 0; disabling is what reset is for.
                self.idle_queue()?.enabled |= value == 1;
                None
            }
            _ => None,
        }
    }

    fn write_u32(&mut self, offset: u64, value: u32) {
        match offset {
            field::DEVICE_FEATURE_SELECT => self.device_feature_select = value,
            field::DRIVER_FEATURE_SELECT => self.driver_feature_select = value,
            // §3.1.1: features are settled once FEATURES_OK stands.
            field::DRIVER_FEATURE if self.status & FEATURES_OK == 0 => {
                set_half(&mut self.accepted, self.driver_feature_select, value);
            }
            field::QUEUE_DESC..=field::QUEUE_DEVICE_HIGH => {
                let Some(queue) = self.idle_queue() else { return };
                match offset {
                    field::QUEUE_DESC => set_half(&mut queue.desc, 0, value),
                    field::QUEUE_DESC_HIGH => set_half(&mut queue.desc, 1, value),
                    field::QUEUE_DRIVER => set_half(&mut queue.avail, 0, value),
                    field::QUEUE_DRIVER_HIGH => set_half(&mut queue.avail, 1, value),
                    field::QUEUE_DEVICE => set_half(&mut queue.used, 0, value),
                    field::QUEUE_DEVICE_HIGH => set_half(&mut queue.used, 1, value),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// The selected queue, while its ring may still be set up.
    fn idle_queue(&mut self) -> Option<&mut Queue> {
        let idle = self.phase == Phase::Idle;
        let queue = self.queues.get_mut(usize::from(self.queue_select))?;
        (idle && !queue.enabled).then_some(queue)
    }

    /// §4.1.5.1.2: a vector that can't be had reads back as "no vector".
    fn existing(&self, vector: u16) -> u16 {
        if vector < self.vectors { vector } else { NO_VECTOR }
    }

    fn reset(&mut self) -> Effect {
        let stop = self.phase == Phase::Running;
        if stop {
            self.phase = Phase::Resetting;
        } else {
            self.clear();
        }
        Effect::Reset { stop }
    }

    fn clear(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(|queue| queue.max_size).collect();
        let config = std::mem::take(&mut self.config);
        // The generation goes on: a driver may compare across a reset.
        let generation = self.generation;
        *self = Self { generation, ..Self::new(self.offered, &sizes, self.vectors, config) };
    }

    /// Bits are only ever added (§2.1.1); those that the driver may not set yet stay clear, which
    /// is how it learns (§3.1.1 step 6).
    fn add_status(&mut self, written: u8) -> Option<Effect> {
        let mut added = written & (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED);
        added &= !self.status;
        if added & FEATURES_OK != 0 && !self.features_are_acceptable() {
            added &= !FEATURES_OK;
        }
        if (self.status | added) & FEATURES_OK == 0 {
            added &= !DRIVER_OK;
        }
        self.status |= added;
        (added & DRIVER_OK != 0).then(|| self.start())
    }

    fn features_are_acceptable(&self) -> bool {
        // §6.1: a device may insist on VERSION_1, and this one speaks nothing older.
        self.accepted & !self.offered == 0 && self.accepted & (1 << VIRTIO_F_VERSION_1) != 0
    }

    fn start(&mut self) -> Effect {
        self.phase = Phase::Running;
        let mut enabled = self.queues.iter().zip(0..).filter(|(queue, _)| queue.enabled);
        if enabled.clone().any(|(queue, _)| !queue.is_aligned()) {
            self.needs_reset();
            // Nothing was started, so there is nothing to wait for at reset.
            self.phase = Phase::Idle;
            return Effect::NeedsReset;
        }
        let rings = enabled.by_ref().map(|(queue, index)| Ring {
            index,
            size: queue.size,
            desc: queue.desc,
            avail: queue.avail,
            used: queue.used,
        });
        Effect::Start(Activation { features: self.accepted, rings: rings.collect() })
    }
}

fn vector(register: u16) -> Option<u16> {
    (register != NO_VECTOR).then_some(register)
}

/// The 32 bits of `value` that a feature select register shows; there are two.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_half(value: &mut u64, select: u32, half: u32) {
    match select {
        0 => *value = (*value & !0xffff_ffff) | u64::from(half),
        1 => *value = (*value & 0xffff_ffff) | u64::from(half) << 32,
        _ => {}
    }
}

/// Copies from `registers` at `offset`, zeros beyond their end.
fn copy_from(registers: &[u8], offset: u64, data: &mut [u8]) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let registers = registers.iter().skip(start).copied();
    for (byte, register) in data.iter_mut().zip(registers.chain(std::iter::repeat(0))) {
        *byte = register;
    }
}

#[cfg(test)]
#[path = "transport_test.rs"]
mod tests;
