//! Names of virtio feature bits, for people.

use virtio_bindings::virtio_blk as blk;
use virtio_bindings::virtio_config as config;
use virtio_bindings::virtio_net as net;
use virtio_bindings::virtio_ring as ring;
use virtio_bindings::virtio_scsi as scsi;

use super::device_type::{CONSOLE_F_EMERG_WRITE, CONSOLE_F_MULTIPORT, CONSOLE_F_SIZE, DeviceType};

/// Rows of `(bit, name)` from constants of the kernel's headers.
macro_rules! names {
    ($module:ident: $($bit:ident)*) => { &[$(($module::$bit, stringify!($bit))),*] };
}

type Names = &'static [(u32, &'static str)];

static RING: Names = names!(ring: VIRTIO_RING_F_INDIRECT_DESC VIRTIO_RING_F_EVENT_IDX);

static TRANSPORT: Names = names!(config:
    VIRTIO_F_VERSION_1 VIRTIO_F_ACCESS_PLATFORM VIRTIO_F_RING_PACKED VIRTIO_F_IN_ORDER
    VIRTIO_F_ORDER_PLATFORM VIRTIO_F_SR_IOV VIRTIO_F_NOTIFICATION_DATA
    VIRTIO_F_NOTIF_CONFIG_DATA VIRTIO_F_RING_RESET VIRTIO_F_ADMIN_VQ);

static BLK: Names = names!(blk:
    VIRTIO_BLK_F_SIZE_MAX VIRTIO_BLK_F_SEG_MAX VIRTIO_BLK_F_GEOMETRY VIRTIO_BLK_F_RO
    VIRTIO_BLK_F_BLK_SIZE VIRTIO_BLK_F_FLUSH VIRTIO_BLK_F_TOPOLOGY VIRTIO_BLK_F_CONFIG_WCE
    VIRTIO_BLK_F_MQ VIRTIO_BLK_F_DISCARD VIRTIO_BLK_F_WRITE_ZEROES VIRTIO_BLK_F_SECURE_ERASE
    VIRTIO_BLK_F_ZONED);

static NET: Names = names!(net:
    VIRTIO_NET_F_CSUM VIRTIO_NET_F_GUEST_CSUM VIRTIO_NET_F_CTRL_GUEST_OFFLOADS VIRTIO_NET_F_MTU
    VIRTIO_NET_F_MAC VIRTIO_NET_F_GUEST_TSO4 VIRTIO_NET_F_GUEST_TSO6 VIRTIO_NET_F_GUEST_ECN
    VIRTIO_NET_F_GUEST_UFO VIRTIO_NET_F_HOST_TSO4 VIRTIO_NET_F_HOST_TSO6 VIRTIO_NET_F_HOST_ECN
    VIRTIO_NET_F_HOST_UFO VIRTIO_NET_F_MRG_RXBUF VIRTIO_NET_F_STATUS VIRTIO_NET_F_CTRL_VQ
    VIRTIO_NET_F_CTRL_RX VIRTIO_NET_F_CTRL_VLAN VIRTIO_NET_F_CTRL_RX_EXTRA
    VIRTIO_NET_F_GUEST_ANNOUNCE VIRTIO_NET_F_MQ VIRTIO_NET_F_CTRL_MAC_ADDR
    VIRTIO_NET_F_DEVICE_STATS VIRTIO_NET_F_VQ_NOTF_COAL VIRTIO_NET_F_NOTF_COAL
    VIRTIO_NET_F_GUEST_USO4 VIRTIO_NET_F_GUEST_USO6 VIRTIO_NET_F_HOST_USO
    VIRTIO_NET_F_HASH_REPORT VIRTIO_NET_F_GUEST_HDRLEN VIRTIO_NET_F_RSS VIRTIO_NET_F_RSC_EXT
    VIRTIO_NET_F_STANDBY VIRTIO_NET_F_SPEED_DUPLEX);

static CONSOLE: Names = &[
    (CONSOLE_F_SIZE, "VIRTIO_CONSOLE_F_SIZE"),
    (CONSOLE_F_MULTIPORT, "VIRTIO_CONSOLE_F_MULTIPORT"),
    (CONSOLE_F_EMERG_WRITE, "VIRTIO_CONSOLE_F_EMERG_WRITE"),
];

static FS: Names = &[(0, "VIRTIO_FS_F_NOTIFICATION")];

static VSOCK: Names = &[
    (0, "VIRTIO_VSOCK_F_STREAM"),
    (1, "VIRTIO_VSOCK_F_SEQPACKET"),
    (2, "VIRTIO_VSOCK_F_NO_IMPLIED_STREAM"),
];

static SCSI: Names = names!(scsi:
    VIRTIO_SCSI_F_INOUT VIRTIO_SCSI_F_HOTPLUG VIRTIO_SCSI_F_CHANGE VIRTIO_SCSI_F_T10_PI);

static SOUND: Names = &[(0, "VIRTIO_SND_F_CTLS")];
static GPIO: Names = &[(0, "VIRTIO_GPIO_F_IRQ")];
static I2C: Names = &[(0, "VIRTIO_I2C_F_ZERO_LENGTH_REQUEST")];

fn own(device_type: DeviceType) -> Names {
    match device_type.name() {
        "blk" => BLK,
        "net" => NET,
        "console" => CONSOLE,
        "fs" => FS,
        "vsock" => VSOCK,
        "scsi" => SCSI,
        "sound" => SOUND,
        "gpio" => GPIO,
        "i2c" => I2C,
        _ => &[],
    }
}

/// The features that devices of this type have of their own.
pub fn known(device_type: DeviceType) -> u64 {
    own(device_type).iter().fold(0, |mask, (bit, _)| mask | 1 << bit)
}

/// The name of `bit` for a device of this type; its number where it has no name.
pub fn name(device_type: DeviceType, bit: u32) -> String {
    let mut all = RING.iter().chain(TRANSPORT).chain(own(device_type));
    all.find(|&&(known, _)| known == bit)
        .map_or_else(|| format!("feature bit {bit}"), |&(_, name)| name.to_owned())
}

/// The names of all bits of `features`, for a log line.
pub fn names(device_type: DeviceType, features: u64) -> String {
    let bits = (0..u64::BITS).filter(|bit| features & (1 << bit) != 0);
    bits.map(|bit| name(device_type, bit)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "features_test.rs"]
mod tests;
