//! What a guest is offered, from what a back-end has and what the user asked for. Pure.
//!
//! Queues, features and configuration space have to agree with each other: a feature whose queue
//! is not there is not offered, and a count of queues in configuration space is no larger than what
//! there is.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use tracing::debug;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX,
    VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_HASH_REPORT, VIRTIO_NET_F_MQ, VIRTIO_NET_F_NOTF_COAL,
    VIRTIO_NET_F_RSS, VIRTIO_NET_F_VQ_NOTF_COAL,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::DeviceSpec;
use super::error::VhostUserError;
use crate::virtio::{
    CONSOLE_F_EMERG_WRITE, CONSOLE_F_MULTIPORT, DeviceType, MAX_QUEUES, NET_CONFIG_FEATURES,
    Queues, features,
};

/// Bits that are the device type's own (virtio 1.3 §2.2).
const TYPE_BITS: u64 = 0x0000_0000_00ff_ffff | !0 << 50;
/// Features between driver and ring that need nothing of the transport. Packed rings, ring reset,
/// notification data and the others do, so they are not offered.
const RING_BITS: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// Network features that are used through the control queue.
const NET_CONTROL_FEATURES: [u32; 12] = [
    VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_F_CTRL_RX,
    VIRTIO_NET_F_CTRL_VLAN,
    VIRTIO_NET_F_CTRL_RX_EXTRA,
    VIRTIO_NET_F_GUEST_ANNOUNCE,
    VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_CTRL_MAC_ADDR,
    VIRTIO_NET_F_NOTF_COAL,
    VIRTIO_NET_F_VQ_NOTF_COAL,
    VIRTIO_NET_F_HASH_REPORT,
    VIRTIO_NET_F_RSS,
];
/// Where max_virtqueue_pairs (virtio 1.3 §5.1.4) and max_nr_ports (§5.3.4) are.
const NET_PAIRS_AT: usize = 8;
const CONSOLE_PORTS_AT: usize = 4;
/// The capacity comes first in a disk's configuration space (§5.2.4).
const BLK_CAPACITY_BYTES: usize = 8;

/// What a back-end has.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Virtio features.
    pub(super) features: u64,
    /// Queues, if it says so (protocol feature MQ).
    pub(super) queues: Option<u64>,
    /// Configuration space, if it has one (protocol feature CONFIG).
    pub(super) config: Option<Vec<u8>>,
}

/// A number in configuration space that has to be lowered to what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    at: usize,
    bytes: usize,
    value: u32,
}

/// What the guest is offered, for as long as the device lives.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    device_type: DeviceType,
    /// Virtio features.
    pub(super) features: u64,
    /// Queues.
    pub(super) queues: u16,
    /// The largest size of each.
    pub(super) queue_size: u16,
    /// Length of configuration space.
    pub(super) config_len: usize,
    limit: Option<Limit>,
}

impl Offer {
    /// Decides what to offer.
    ///
    /// # Errors
    /// [`VhostUserError`] naming what the back-end lacks or the user asked too much of.
    pub(super) fn new(spec: &DeviceSpec, found: &Found) -> Result<Self, VhostUserError> {
        let device_type = spec.device_type;
        let config = found.config.as_deref();
        refuse_other_type(device_type, found.features)?;
        require(device_type, found)?;
        refuse_no_disk(device_type, found)?;
        let known = RING_BITS | (TYPE_BITS & features::known(device_type));
        let mut offer = Self {
            device_type,
            features: found.features & known,
            queues: 0,
            queue_size: queue_size(spec)?,
            config_len: config.map_or(0, <[u8]>::len),
            limit: None,
        };
        let withheld = found.features & !known;
        if withheld != 0 {
            let names = features::names(device_type, withheld);
            debug!("device {}: not offered to the guest: {names}", spec.id);
        }
        if config.is_none() {
            offer.withhold(&NET_CONFIG_FEATURES, "net");
        }
        offer.withhold(&[CONSOLE_F_EMERG_WRITE], "console");
        offer.choose_queues(spec, found)?;
        Ok(offer)
    }

    /// Whether a back-end that came back can take the place of the one that was lost.
    ///
    /// # Errors
    /// [`VhostUserError::Changed`] naming what it lacks.
    pub(super) fn check_return(&self, found: &Found) -> Result<(), VhostUserError> {
        let missing = self.features & !found.features;
        if missing != 0 {
            let names = features::names(self.device_type, missing);
            return Err(VhostUserError::Changed(format!("it lacks {names}")));
        }
        let queues = found.queues.unwrap_or(u64::from(self.queues));
        if queues < u64::from(self.queues) && self.device_type.queues() != Queues::Net {
            let reason = format!("it has {queues} queues instead of {}", self.queues);
            return Err(VhostUserError::Changed(reason));
        }
        let config = found.config.as_deref().unwrap_or_default();
        let len = config.len();
        if len < self.config_len {
            let reason = format!("it has {len} bytes of configuration, not {}", self.config_len);
            return Err(VhostUserError::Changed(reason));
        }
        // The driver counts on the number that it was shown.
        let shown = self.limit.map_or(0, |limit| limit.value);
        let has = self.limit.and_then(|limit| number(config, limit.at, limit.bytes));
        match has {
            Some(has) if has < shown => {
                let reason = format!("its configuration has {has} queues instead of {shown}");
                Err(VhostUserError::Changed(reason))
            }
            _ => Ok(()),
        }
    }

    /// What is offered, for a person.
    pub(super) fn sentence(&self) -> String {
        let Self { queues, queue_size, .. } = self;
        let names = features::names(self.device_type, self.features);
        format!("has {queues} queues of {queue_size}, features {names}")
    }

    /// Configuration space as the guest shall see it.
    pub(super) fn present(&self, mut config: Vec<u8>) -> Vec<u8> {
        config.resize(self.config_len, 0);
        let Some(limit) = self.limit else { return config };
        let number = config.iter_mut().skip(limit.at).take(limit.bytes);
        for (byte, &limited) in number.zip(&limit.value.to_le_bytes()) {
            *byte = limited;
        }
        config
    }

    /// Does not offer `bits` of devices named `name`.
    fn withhold(&mut self, bits: &[u32], name: &str) {
        if self.device_type.name() == name {
            self.features &= !bits.iter().fold(0, |mask, bit| mask | 1u64 << bit);
        }
    }

    fn offers(&self, bit: u32) -> bool {
        self.features & (1 << bit) != 0
    }

    fn choose_queues(&mut self, spec: &DeviceSpec, found: &Found) -> Result<(), VhostUserError> {
        let config = found.config.as_deref().unwrap_or_default();
        let most = found.queues.map_or(MAX_QUEUES, |most| clamp(most).min(MAX_QUEUES));
        match self.device_type.queues() {
            Queues::Fixed(queues) => {
                let name = self.device_type.name();
                self.check_count(queues, most)?;
                let asked = spec.queues.unwrap_or(queues);
                if asked != queues {
                    let limit = format!("a {name} device has {queues}");
                    return Err(VhostUserError::TooManyQueues { asked, limit });
                }
                self.queues = queues;
            }
            Queues::PerCpu { feature, limit_at } => {
                let most = match self.offers(feature) {
                    true => most.min(number(config, limit_at, 2).map_or(1, clamp_u32)),
                    // Without the feature there is exactly one (virtio 1.3 §5.2.2).
                    false => most.min(1),
                };
                self.check_count(1, most)?;
                self.queues = pick(spec.queues, spec.vcpus.max(1), most)?;
                // Without the feature nobody reads the number, and it may be any (§5.2.4).
                let limit = Limit { at: limit_at, bytes: 2, value: self.queues.into() };
                self.limit = self.offers(feature).then_some(limit);
            }
            Queues::Counted { base, count_at } => {
                let count = number(config, count_at, 4).map_or(0, clamp_u32);
                let most = most.min(base.saturating_add(count));
                self.check_count(base.saturating_add(1), most)?;
                let usual = base.saturating_add(spec.vcpus.max(1));
                self.queues = pick(spec.queues, usual, most)?;
                let value = u32::from(self.queues.saturating_sub(base));
                self.limit = Some(Limit { at: count_at, bytes: 4, value });
            }
            // Back-ends count queues or pairs of them; a pair is the least a device can have.
            Queues::Net => self.choose_net_queues(spec, config, most.max(2))?,
            Queues::Console => self.choose_console_queues(spec, config, most)?,
        }
        Ok(())
    }

    /// virtio 1.3 §5.1.2: receive and transmit for each pair, then control if CTRL_VQ.
    fn choose_net_queues(
        &mut self,
        spec: &DeviceSpec,
        config: &[u8],
        most: u16,
    ) -> Result<(), VhostUserError> {
        let pairs = match self.offers(VIRTIO_NET_F_MQ) {
            true => number(config, NET_PAIRS_AT, 2).map_or(1, clamp_u32).max(1),
            false => 1,
        };
        let control = u16::from(self.offers(VIRTIO_NET_F_CTRL_VQ));
        let whole = pairs.saturating_mul(2).saturating_add(control);
        let asked = pick(spec.queues, whole.min(most), most)?;
        if asked < 3 {
            self.withhold(&NET_CONTROL_FEATURES, "net");
            self.queues = 2;
            return self.check_count(2, asked);
        }
        let pairs = pairs.min(asked.saturating_sub(control) / 2);
        self.queues = pairs.saturating_mul(2).saturating_add(control);
        self.limit = self.offers(VIRTIO_NET_F_MQ).then(|| Limit {
            at: NET_PAIRS_AT,
            bytes: 2,
            value: pairs.into(),
        });
        Ok(())
    }

    /// virtio 1.3 §5.3.2: a pair for port 0, and with MULTIPORT one for control and one for each
    /// further port.
    fn choose_console_queues(
        &mut self,
        spec: &DeviceSpec,
        config: &[u8],
        most: u16,
    ) -> Result<(), VhostUserError> {
        self.check_count(2, most)?;
        let ports = match self.offers(CONSOLE_F_MULTIPORT) {
            true => number(config, CONSOLE_PORTS_AT, 4).map_or(0, clamp_u32),
            false => 0,
        };
        let whole = if ports == 0 { 2 } else { ports.saturating_mul(2).saturating_add(2) };
        let asked = pick(spec.queues, whole.min(most), most)?;
        self.check_count(2, asked)?;
        if ports == 0 || asked < 4 {
            self.withhold(&[CONSOLE_F_MULTIPORT], "console");
            self.queues = 2;
        } else {
            let ports = ports.min(asked.saturating_sub(2) / 2);
            self.queues = ports.saturating_mul(2).saturating_add(2);
            self.limit = Some(Limit { at: CONSOLE_PORTS_AT, bytes: 4, value: ports.into() });
        }
        Ok(())
    }

    /// Refuses a back-end with fewer queues than such a device has at least.
    fn check_count(&self, least: u16, most: u16) -> Result<(), VhostUserError> {
        if most >= least {
            return Ok(());
        }
        Err(VhostUserError::OtherType {
            device_type: self.device_type.name(),
            reason: format!("it has {most} queues where such a device has at least {least}"),
        })
    }
}

/// What the user asked for if that can be had, else what is usual as far as it can be had.
fn pick(asked: Option<u16>, usual: u16, most: u16) -> Result<u16, VhostUserError> {
    match asked {
        None => Ok(usual.min(most)),
        Some(asked) if asked <= most && asked > 0 => Ok(asked),
        Some(0) => {
            Err(VhostUserError::TooManyQueues { asked: 0, limit: "there must be one".into() })
        }
        Some(asked) => {
            let limit = format!("the back-end has {most}");
            Err(VhostUserError::TooManyQueues { asked, limit })
        }
    }
}

fn queue_size(spec: &DeviceSpec) -> Result<u16, VhostUserError> {
    let size = spec.queue_size.unwrap_or_else(|| spec.device_type.queue_size());
    if size.is_power_of_two() && size >= 2 {
        Ok(size)
    } else {
        Err(VhostUserError::QueueSize(size))
    }
}

/// What no device can do without.
fn require(device_type: DeviceType, found: &Found) -> Result<(), VhostUserError> {
    if found.features & (1 << VIRTIO_F_VERSION_1) == 0 {
        return Err(VhostUserError::MissingFeature {
            feature: features::name(device_type, VIRTIO_F_VERSION_1),
            needed_for: "every device needs: only virtio 1.0 and later is spoken",
        });
    }
    if device_type.needs_config() && found.config.is_none() {
        return Err(VhostUserError::MissingFeature {
            feature: "VHOST_USER_PROTOCOL_F_CONFIG".into(),
            needed_for: "this type of device needs to describe itself",
        });
    }
    Ok(())
}

/// Refuses a back-end whose own features are not those of `device_type` but are all those of
/// another type. Vhost-user has no way to ask what a device is. A feature that no type knows is
/// taken for one newer than we are.
fn refuse_other_type(device_type: DeviceType, found: u64) -> Result<(), VhostUserError> {
    let own = found & TYPE_BITS;
    let unknown = own & !features::known(device_type);
    let Some(bit) = (0..u64::BITS).find(|bit| unknown & (1 << bit) != 0) else { return Ok(()) };
    let other = DeviceType::all().find(|&other| own & !features::known(other) == 0);
    other.map_or(Ok(()), |other| {
        let feature = features::name(other, bit);
        let other = other.name();
        Err(VhostUserError::OtherType {
            device_type: device_type.name(),
            reason: format!("it offers {feature}, as a {other} device does"),
        })
    })
}

/// Refuses as a disk what has nothing of one: neither a feature nor a sector. A back-end of another
/// type looks so when it has no features of its own and answers reads beyond its configuration
/// space with zeroes.
fn refuse_no_disk(device_type: DeviceType, found: &Found) -> Result<(), VhostUserError> {
    let capacity = found.config.iter().flatten().take(BLK_CAPACITY_BYTES);
    let empty = found.config.is_some() && capacity.copied().all(|byte| byte == 0);
    if device_type.name() == "blk" && found.features & TYPE_BITS == 0 && empty {
        return Err(VhostUserError::OtherType {
            device_type: device_type.name(),
            reason: "it offers no feature of one and has no capacity".to_owned(),
        });
    }
    Ok(())
}

/// The little-endian number of `bytes` bytes at `at` in configuration space.
fn number(config: &[u8], at: usize, bytes: usize) -> Option<u32> {
    let field = config.get(at..at.checked_add(bytes)?)?;
    Some(field.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte)))
}

fn clamp(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

fn clamp_u32(value: u32) -> u16 {
    clamp(value.into())
}

#[cfg(test)]
#[path = "offer_test.rs"]
mod tests;
