//! The header that the driver puts before a packet (virtio 1.3 §5.1.6.2), checked before the host's
//! kernel sees it. It looks at lengths and offsets, never into the packet.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP, VIRTIO_NET_HDR_GSO_UDP_L4,
};

use crate::offload::Features;

/// The length of the header, with `num_buffers`, which is always there with VIRTIO_F_VERSION_1.
pub(crate) const HEADER: usize = 12;
/// Where `num_buffers` is.
pub(crate) const NUM_BUFFERS: usize = 10;
/// An Ethernet header: the shortest frame that can be told from rubbish.
const ETHERNET: usize = 14;
/// The longest frame: what IP can describe, an Ethernet header and a VLAN tag.
pub(crate) const MAX_FRAME: usize = 65535 + ETHERNET + 4;
/// The longest packet, with its header, that costs less to copy than to gather from the guest's memory,
/// or to scatter over it, by the kernel: a full Ethernet frame is one.
pub(crate) const SMALL_PACKET: usize = 2048;

const NEEDS_CSUM: u8 = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
const GSO_NONE: u8 = VIRTIO_NET_HDR_GSO_NONE as u8;
const GSO_TCPV4: u8 = VIRTIO_NET_HDR_GSO_TCPV4 as u8;
const GSO_UDP: u8 = VIRTIO_NET_HDR_GSO_UDP as u8;
const GSO_TCPV6: u8 = VIRTIO_NET_HDR_GSO_TCPV6 as u8;
const GSO_UDP_L4: u8 = VIRTIO_NET_HDR_GSO_UDP_L4 as u8;
const GSO_ECN: u8 = VIRTIO_NET_HDR_GSO_ECN as u8;

/// What the driver got wrong in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderFault {
    #[error("a frame of {len} bytes")]
    FrameLength { len: usize },
    #[error("a checksum to fill in though VIRTIO_NET_F_CSUM was not accepted")]
    CsumNotAccepted,
    #[error("a checksum at {start} + {offset} in a frame of {len} bytes")]
    CsumOutOfFrame { start: u16, offset: u16, len: usize },
    #[error("segmentation of type {gso_type:#x}, which does not exist or was not accepted")]
    GsoNotAccepted { gso_type: u8 },
    #[error("segmentation without a checksum to fill in")]
    GsoWithoutCsum,
    #[error("segments of {size} bytes behind {header} bytes of headers in a frame of {len} bytes")]
    GsoSize { size: u16, header: u16, len: usize },
}

/// A header that makes sense for its frame: what the kernel gets to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TransmitHeader {
    csum: Option<(u16, u16)>,
    gso: Option<Gso>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gso {
    kind: u8,
    header: u16,
    size: u16,
}

impl TransmitHeader {
    /// Reads the header of a frame of `len` bytes.
    pub(crate) fn parse(
        bytes: [u8; HEADER],
        len: usize,
        features: Features,
    ) -> Result<Self, HeaderFault> {
        if !(ETHERNET..=MAX_FRAME).contains(&len) {
            return Err(HeaderFault::FrameLength { len });
        }
        // virtio 1.3 §5.1.6.2.1: a driver sets no other flag, and `num_buffers` to zero. Both mean
        // something to a receiver only, so they go no further.
        let [flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1, ..] = bytes;
        let start = u16::from_le_bytes([c0, c1]);
        let offset = u16::from_le_bytes([o0, o1]);
        let header = u16::from_le_bytes([h0, h1]);
        let size = u16::from_le_bytes([s0, s1]);
        let csum = match flags & NEEDS_CSUM {
            0 => None,
            _ => Some(csum(start, offset, len, features)?),
        };
        let gso = match gso_type {
            GSO_NONE => None,
            kind => Some(gso(kind, header, size, len, features)?),
        };
        // virtio 1.3 §5.1.6.2.1: "If gso_type is not VIRTIO_NET_HDR_GSO_NONE, the driver MUST also
        // set the VIRTIO_NET_HDR_F_NEEDS_CSUM bit".
        if gso.is_some() && csum.is_none() {
            return Err(HeaderFault::GsoWithoutCsum);
        }
        Ok(Self { csum, gso })
    }

    /// The header as the TAP takes it.
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let (flags, start, offset) =
            self.csum.map_or((0, 0, 0), |(start, offset)| (NEEDS_CSUM, start, offset));
        let gso = self.gso.unwrap_or(Gso { kind: GSO_NONE, header: 0, size: 0 });
        let [h0, h1] = gso.header.to_le_bytes();
        let [s0, s1] = gso.size.to_le_bytes();
        let [c0, c1] = start.to_le_bytes();
        let [o0, o1] = offset.to_le_bytes();
        [flags, gso.kind, h0, h1, s0, s1, c0, c1, o0, o1, 0, 0]
    }
}

/// virtio 1.3 §5.1.6.2: the sum covers the frame from `start` and goes to `offset` from there.
fn csum(
    start: u16,
    offset: u16,
    len: usize,
    features: Features,
) -> Result<(u16, u16), HeaderFault> {
    if !features.has(VIRTIO_NET_F_CSUM) {
        return Err(HeaderFault::CsumNotAccepted);
    }
    // Three 16-bit numbers fit.
    let end = usize::from(start).saturating_add(usize::from(offset)).saturating_add(2);
    if usize::from(start) < ETHERNET || end > len {
        return Err(HeaderFault::CsumOutOfFrame { start, offset, len });
    }
    Ok((start, offset))
}

fn gso(
    kind: u8,
    header: u16,
    size: u16,
    len: usize,
    features: Features,
) -> Result<Gso, HeaderFault> {
    let ecn = kind & GSO_ECN != 0;
    let accepted = match kind & !GSO_ECN {
        GSO_TCPV4 => features.has(VIRTIO_NET_F_HOST_TSO4),
        GSO_TCPV6 => features.has(VIRTIO_NET_F_HOST_TSO6),
        GSO_UDP => features.has(VIRTIO_NET_F_HOST_UFO) && !ecn,
        GSO_UDP_L4 => features.has(VIRTIO_NET_F_HOST_USO) && !ecn,
        _ => false,
    };
    if !accepted || (ecn && !features.has(VIRTIO_NET_F_HOST_ECN)) {
        return Err(HeaderFault::GsoNotAccepted { gso_type: kind });
    }
    if size == 0 || usize::from(header) > len {
        return Err(HeaderFault::GsoSize { size, header, len });
    }
    Ok(Gso { kind, header, size })
}

#[cfg(test)]
#[path = "header_test.rs"]
mod tests;
