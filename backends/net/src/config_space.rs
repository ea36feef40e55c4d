//! The device's configuration space (virtio 1.3 §5.1.4), up to the duplex mode.

use crate::Mac;

/// VIRTIO_NET_S_LINK_UP and VIRTIO_NET_S_ANNOUNCE.
const LINK_UP: u16 = 1;
const ANNOUNCE: u16 = 2;
/// Full duplex, as every TAP is.
const FULL: u8 = 1;
/// "Unknown", for both fields.
const UNKNOWN_SPEED: u32 = u32::MAX;
const UNKNOWN_DUPLEX: u8 = u8::MAX;

/// What the driver can read about the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConfigSpace {
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: Option<u16>,
    pub(crate) queue_pairs: u16,
    /// In units of a million bits a second.
    pub(crate) speed: Option<u32>,
    /// Whether the cable is plugged in.
    pub(crate) link_up: bool,
    /// The driver is to announce itself.
    pub(crate) announce: bool,
}

impl ConfigSpace {
    /// The fields in the order of `struct virtio_net_config`. Those whose feature is not offered
    /// are there all the same, as zeros or unknown.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mac = self.mac.map_or([0; 6], Mac::octets);
        let link = if self.link_up { LINK_UP } else { 0 };
        let status = if self.announce { link | ANNOUNCE } else { link };
        let words = [status, self.queue_pairs, self.mtu.unwrap_or(0)];
        let speed = self.speed.unwrap_or(UNKNOWN_SPEED).to_le_bytes();
        let duplex = self.speed.map_or(UNKNOWN_DUPLEX, |_| FULL);
        // Padded to a whole number of 32-bit words.
        let duplex = [duplex, 0, 0, 0];
        [mac.as_slice(), words.map(u16::to_le_bytes).as_flattened(), &speed, &duplex].concat()
    }
}

#[cfg(test)]
#[path = "config_space_test.rs"]
mod tests;
