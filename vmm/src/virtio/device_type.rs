//! The device types that can be attached, and what is known of each without asking the device:
//! virtio id, PCI class, size of configuration space, usual queues.
//!
//! A type is only a row here; everything else serves all types alike.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_SECURE_ERASE, VIRTIO_BLK_F_WRITE_ZEROES,
    VIRTIO_BLK_F_ZONED,
};
use virtio_bindings::virtio_ids::{
    VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_FS, VIRTIO_ID_GPIO, VIRTIO_ID_I2C_ADAPTER,
    VIRTIO_ID_NET, VIRTIO_ID_RNG, VIRTIO_ID_SCSI, VIRTIO_ID_SOUND, VIRTIO_ID_VSOCK,
};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_HASH_REPORT, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_RSS, VIRTIO_NET_F_SPEED_DUPLEX, VIRTIO_NET_F_STATUS,
};

/// VIRTIO_CONSOLE_F_SIZE, _MULTIPORT and _EMERG_WRITE (virtio 1.3 §5.3.3).
pub(super) const CONSOLE_F_SIZE: u32 = 0;
pub(crate) const CONSOLE_F_MULTIPORT: u32 = 1;
pub(crate) const CONSOLE_F_EMERG_WRITE: u32 = 2;

/// How many queues a device of a type has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queues {
    /// This many, always.
    Fixed(u16),
    /// One for each vCPU; at most the little-endian number at this offset in configuration space if
    /// the feature was offered, else one.
    PerCpu {
        /// Feature bit that makes the number valid.
        feature: u32,
        /// Where the number is; two bytes.
        limit_at: usize,
    },
    /// These, plus as many as the little-endian number at this offset says.
    Counted {
        /// Queues that are always there.
        base: u16,
        /// Where the number is; four bytes.
        count_at: usize,
    },
    /// A pair, more with MQ, and a control queue with CTRL_VQ (virtio 1.3 §5.1.2).
    Net,
    /// A pair, or with MULTIPORT control queues and a pair for each further port (§5.3.2).
    Console,
}

struct Row {
    name: &'static str,
    id: u32,
    class: u32,
    queues: Queues,
    queue_size: u16,
    /// Whether the type is of no use without configuration space.
    needs_config: bool,
    /// Whether it carries a stream, so that a device completes buffers in the order in which it got
    /// them.
    in_order: bool,
    /// Queues in which buffers lie ready for what the device may have to say.
    ready: fn(u16) -> bool,
    config_len: fn(u64) -> usize,
}

const STORAGE: u32 = 0x01_80_00;

/// In the order in which they are offered to a user.
static ROWS: [Row; 10] = [
    Row {
        name: "blk",
        id: VIRTIO_ID_BLOCK,
        class: STORAGE,
        queues: Queues::PerCpu { feature: VIRTIO_BLK_F_MQ, limit_at: 34 },
        queue_size: 256,
        needs_config: true,
        in_order: false,
        ready: |_| false,
        config_len: blk_config_len,
    },
    Row {
        name: "net",
        id: VIRTIO_ID_NET,
        class: 0x02_00_00,
        queues: Queues::Net,
        queue_size: 256,
        needs_config: false,
        in_order: true,
        ready: |queue| queue.is_multiple_of(2),
        config_len: net_config_len,
    },
    Row {
        name: "console",
        id: VIRTIO_ID_CONSOLE,
        class: 0x07_80_00,
        queues: Queues::Console,
        queue_size: 128,
        needs_config: false,
        in_order: true,
        ready: |queue| queue.is_multiple_of(2),
        config_len: console_config_len,
    },
    Row {
        name: "rng",
        id: VIRTIO_ID_RNG,
        class: 0xff_00_00,
        queues: Queues::Fixed(1),
        queue_size: 64,
        needs_config: false,
        in_order: false,
        ready: |_| false,
        config_len: |_| 0,
    },
    Row {
        name: "fs",
        id: VIRTIO_ID_FS,
        class: STORAGE,
        queues: Queues::Counted { base: 1, count_at: 36 },
        queue_size: 128,
        needs_config: true,
        in_order: false,
        ready: |_| false,
        config_len: |_| 40,
    },
    Row {
        name: "vsock",
        id: VIRTIO_ID_VSOCK,
        class: 0x02_80_00,
        queues: Queues::Fixed(3),
        queue_size: 128,
        needs_config: true,
        in_order: true,
        ready: |queue| queue != 1,
        config_len: |_| 8,
    },
    Row {
        name: "scsi",
        id: VIRTIO_ID_SCSI,
        class: 0x01_00_00,
        queues: Queues::Counted { base: 2, count_at: 0 },
        queue_size: 128,
        needs_config: true,
        in_order: false,
        ready: |queue| queue == 1,
        config_len: |_| 36,
    },
    Row {
        name: "sound",
        id: VIRTIO_ID_SOUND,
        class: 0x04_01_00,
        queues: Queues::Fixed(4),
        queue_size: 64,
        needs_config: true,
        in_order: false,
        ready: |queue| queue == 1 || queue == 3,
        config_len: |_| 12,
    },
    Row {
        name: "gpio",
        id: VIRTIO_ID_GPIO,
        class: 0xff_00_00,
        queues: Queues::Fixed(2),
        queue_size: 64,
        needs_config: true,
        in_order: false,
        ready: |queue| queue == 1,
        config_len: |_| 8,
    },
    Row {
        name: "i2c",
        id: VIRTIO_ID_I2C_ADAPTER,
        class: 0x0c_05_00,
        queues: Queues::Fixed(1),
        queue_size: 64,
        needs_config: false,
        in_order: false,
        ready: |_| false,
        config_len: |_| 0,
    },
];

/// A kind of virtio device.
#[derive(Clone, Copy)]
pub struct DeviceType(&'static Row);

impl DeviceType {
    /// The type with this name, as `--device` takes it.
    pub fn by_name(name: &str) -> Option<Self> {
        ROWS.iter().find(|row| row.name == name).map(Self)
    }

    /// All types.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(Self)
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ROWS.iter().map(|row| row.name)
    }

    /// The name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Virtio device ID (virtio 1.3 §5).
    pub(crate) fn id(self) -> u16 {
        self.0.id as u16
    }

    /// PCI class code.
    pub(crate) fn class(self) -> u32 {
        self.0.class
    }

    /// How many queues such a device has.
    pub(crate) fn queues(self) -> Queues {
        self.0.queues
    }

    /// Entries per queue unless asked otherwise: what other front-ends use, so that every back-end
    /// takes it.
    pub(crate) fn queue_size(self) -> u16 {
        self.0.queue_size
    }

    /// Whether the type is of no use without configuration space.
    pub(crate) fn needs_config(self) -> bool {
        self.0.needs_config
    }

    /// Whether a device completes buffers in the order in which it got them.
    pub(crate) fn in_order(self) -> bool {
        self.0.in_order
    }

    /// Whether buffers in this queue lie ready for what the device may have to say, and are not
    /// requests that it owes an answer to.
    pub(crate) fn lies_ready(self, queue: u16) -> bool {
        (self.0.ready)(queue)
    }

    /// Bytes of configuration space that exist with `features` offered.
    pub(crate) fn config_len(self, features: u64) -> usize {
        (self.0.config_len)(features)
    }
}

impl PartialEq for DeviceType {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for DeviceType {}

impl std::fmt::Debug for DeviceType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

fn any(features: u64, bits: &[u32]) -> bool {
    bits.iter().any(|bit| features & (1 << bit) != 0)
}

/// The end of the last field for which `features` hold, or `otherwise`.
fn end_of(features: u64, fields: &[(&[u32], usize)], otherwise: usize) -> usize {
    fields
        .iter()
        .filter(|(bits, _)| any(features, bits))
        .map(|&(_, end)| end)
        .max()
        .unwrap_or(otherwise)
}

/// virtio 1.3 §5.2.4; up to num_queues every device has it.
fn blk_config_len(features: u64) -> usize {
    let fields: [(&[u32], usize); 3] = [
        (&[VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES], 60),
        (&[VIRTIO_BLK_F_SECURE_ERASE], 72),
        (&[VIRTIO_BLK_F_ZONED], 96),
    ];
    end_of(features, &fields, 36)
}

/// virtio 1.3 §5.1.4.
fn net_config_len(features: u64) -> usize {
    let fields: [(&[u32], usize); 6] = [
        (&[VIRTIO_NET_F_MAC], 6),
        (&[VIRTIO_NET_F_STATUS], 8),
        (&[VIRTIO_NET_F_MQ], 10),
        (&[VIRTIO_NET_F_MTU], 12),
        (&[VIRTIO_NET_F_SPEED_DUPLEX], 20),
        (&[VIRTIO_NET_F_RSS, VIRTIO_NET_F_HASH_REPORT], 28),
    ];
    end_of(features, &fields, 0)
}

/// virtio 1.3 §5.3.4.
fn console_config_len(features: u64) -> usize {
    if any(features, &[CONSOLE_F_SIZE, CONSOLE_F_MULTIPORT, CONSOLE_F_EMERG_WRITE]) {
        12
    } else {
        0
    }
}

/// Features of a network device whose meaning is in configuration space.
pub(crate) const NET_CONFIG_FEATURES: [u32; 7] = [
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_STATUS,
    VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_SPEED_DUPLEX,
    VIRTIO_NET_F_RSS,
    VIRTIO_NET_F_HASH_REPORT,
];

#[cfg(test)]
#[path = "device_type_test.rs"]
mod tests;
