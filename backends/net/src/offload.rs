//! Which offloads there are: feature bits of the device (virtio 1.3 §5.1.3) on one side, what the
//! TAP may hand over unfinished on the other. Pure: it asks nobody.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
    VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_UFO,
    VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MRG_RXBUF,
};

const CSUM: u32 = libc::TUN_F_CSUM;
const TSO4: u32 = libc::TUN_F_TSO4;
const TSO6: u32 = libc::TUN_F_TSO6;
const ECN: u32 = libc::TUN_F_TSO_ECN;
const UFO: u32 = libc::TUN_F_UFO;
/// UDP segmentation for both families: the kernel takes these two (Linux 6.2) together only.
pub(crate) const USO: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// What the driver may turn off and on with VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET.
const GUEST_OFFLOADS: [u32; 7] = [
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_GUEST_UFO,
    VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6,
];

/// The driver's choice of features, asked by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features(u64);

impl Features {
    pub(crate) const fn new(accepted: u64) -> Self {
        Self(accepted)
    }

    #[cfg(test)]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    pub(crate) fn has(self, bit: u32) -> bool {
        self.0 & bit_of(bit) != 0
    }

    /// Whether one packet may fill several chains.
    pub(crate) fn mergeable(self) -> bool {
        self.has(VIRTIO_NET_F_MRG_RXBUF)
    }

    /// What the TAP may leave to the driver: TUNSETOFFLOAD's flags.
    pub(crate) fn tap_offload(self) -> u32 {
        // virtio 1.3 §5.1.3.1: segmentation requires checksum offload. The driver must not have
        // accepted one without the other; if it did, it gets neither.
        if !self.has(VIRTIO_NET_F_GUEST_CSUM) {
            return 0;
        }
        let tcp4 = self.flag(VIRTIO_NET_F_GUEST_TSO4, TSO4);
        let tcp6 = self.flag(VIRTIO_NET_F_GUEST_TSO6, TSO6);
        let ecn = if tcp4 | tcp6 == 0 { 0 } else { self.flag(VIRTIO_NET_F_GUEST_ECN, ECN) };
        let both = self.has(VIRTIO_NET_F_GUEST_USO4) && self.has(VIRTIO_NET_F_GUEST_USO6);
        let uso = if both { USO } else { 0 };
        CSUM | tcp4 | tcp6 | ecn | uso | self.flag(VIRTIO_NET_F_GUEST_UFO, UFO)
    }

    /// These features with `offloads` in the place of what of them the driver takes unfinished
    /// (virtio 1.3 §5.1.6.5.6); `None` if there are others among those.
    pub(crate) fn guest_offloads(self, offloads: u64) -> Option<Self> {
        let changeable = GUEST_OFFLOADS.iter().fold(0, |bits, &bit| bits | bit_of(bit));
        let possible = self.0 & changeable;
        (offloads & !possible == 0).then_some(Self(self.0 & !changeable | offloads))
    }

    fn flag(self, bit: u32, flag: u32) -> u32 {
        if self.has(bit) { flag } else { 0 }
    }
}

/// What to offer to the driver on a TAP; `uso` if its kernel knows UDP segmentation.
pub(crate) fn offered(uso: bool) -> u64 {
    let always = [
        VIRTIO_NET_F_CSUM,
        VIRTIO_NET_F_GUEST_CSUM,
        VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_GUEST_TSO6,
        VIRTIO_NET_F_GUEST_ECN,
        VIRTIO_NET_F_GUEST_UFO,
        VIRTIO_NET_F_HOST_TSO4,
        VIRTIO_NET_F_HOST_TSO6,
        VIRTIO_NET_F_HOST_ECN,
        VIRTIO_NET_F_HOST_UFO,
        VIRTIO_NET_F_MRG_RXBUF,
        VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
    ];
    let with_uso = [VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_USO];
    let with_uso = if uso { with_uso.as_slice() } else { &[] };
    always.iter().chain(with_uso).fold(0, |bits, &bit| bits | bit_of(bit))
}

/// What to offer where frames come and go without a virtio header, so that none can be unfinished.
pub(crate) fn without_headers() -> u64 {
    bit_of(VIRTIO_NET_F_MRG_RXBUF)
}

pub(crate) fn bit_of(bit: u32) -> u64 {
    1 << bit
}

#[cfg(test)]
#[path = "offload_test.rs"]
mod tests;
