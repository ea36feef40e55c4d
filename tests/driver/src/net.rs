//! The header in front of every packet (virtio 1.3 §5.1.6), as a driver writes and reads it.

/// Its length, with `num_buffers` (virtio 1.3 §5.1.6.1: always there with VIRTIO_F_VERSION_1).
pub const NET_HEADER: usize = 12;

/// virtio_net_hdr_v1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetHeader {
    /// VIRTIO_NET_HDR_F_*: 1 needs a checksum, 2 checksum is valid.
    pub flags: u8,
    /// VIRTIO_NET_HDR_GSO_*: 0 none, 1 TCPv4, 3 UDP, 4 TCPv6, 5 UDP_L4, 0x80 ECN.
    pub gso_type: u8,
    /// Length of the headers to repeat in each segment.
    pub hdr_len: u16,
    /// Bytes of payload in each segment.
    pub gso_size: u16,
    /// Where checksumming starts.
    pub csum_start: u16,
    /// Where the sum goes, from `csum_start`.
    pub csum_offset: u16,
    /// Over how many chains a received packet spreads.
    pub num_buffers: u16,
}

impl NetHeader {
    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; NET_HEADER] {
        let mut bytes = [0; NET_HEADER];
        let words =
            [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset, self.num_buffers];
        let (kind, fields) = bytes.split_at_mut(2);
        kind.copy_from_slice(&[self.flags, self.gso_type]);
        for (field, word) in fields.chunks_exact_mut(2).zip(words) {
            field.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads a header from a packet's first bytes; the rest is the frame.
    pub fn split(packet: &[u8]) -> Option<(Self, &[u8])> {
        let (header, frame) = packet.split_first_chunk::<NET_HEADER>()?;
        let &[flags, gso_type, a, b, c, d, e, f, g, h, i, j] = header;
        let word = |low, high| u16::from_le_bytes([low, high]);
        let header = Self {
            flags,
            gso_type,
            hdr_len: word(a, b),
            gso_size: word(c, d),
            csum_start: word(e, f),
            csum_offset: word(g, h),
            num_buffers: word(i, j),
        };
        Some((header, frame))
    }
}
