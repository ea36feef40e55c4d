//! The device's configuration space (virtio 1.3 §5.1.4), up to the MTU.

use crate::Mac;

/// VIRTIO_NET_S_LINK_UP.
const LINK_UP: u16 = 1;

/// What the driver can read about the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConfigSpace {
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: Option<u16>,
    pub(crate) queue_pairs: u16,
}

impl ConfigSpace {
    /// The fields in the order of `struct virtio_net_config`. Those whose feature is not offered
    /// are there all the same, as zeros.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mac = self.mac.map_or([0; 6], Mac::octets);
        let words = [LINK_UP, self.queue_pairs, self.mtu.unwrap_or(0)];
        [&mac, words.map(u16::to_le_bytes).as_flattened()].concat()
    }
}

#[cfg(test)]
#[path = "config_space_test.rs"]
mod tests;
