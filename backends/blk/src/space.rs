//! The configuration space and the feature bits of a block device (virtio 1.3 §5.2.3, §5.2.4).

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_WRITE_ZEROES,
};

use crate::geometry::SECTOR;
use crate::image::Image;
use crate::ranges::{DISCARD, RangeLimits, WRITE_ZEROES};

/// The data buffers in one request: with header and status a chain of 128 descriptors, which fits
/// the smallest queue that front-ends commonly ask for. The length of a buffer has no limit, so
/// `size_max` is not offered.
const SEGMENTS: u32 = 126;

/// Where the field `writeback` is.
pub(crate) const WRITEBACK: usize = 32;

/// The feature bits of a device for `image` with so many queues.
pub(crate) fn features(image: &Image, queues: u16) -> u64 {
    let optional = [
        (image.is_read_only(), VIRTIO_BLK_F_RO),
        (!image.is_read_only(), VIRTIO_BLK_F_DISCARD),
        (!image.is_read_only(), VIRTIO_BLK_F_WRITE_ZEROES),
        (!image.is_read_only(), VIRTIO_BLK_F_CONFIG_WCE),
        (image.geometry().has_topology(), VIRTIO_BLK_F_TOPOLOGY),
        (queues > 1, VIRTIO_BLK_F_MQ),
    ];
    let always = 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | 1 << VIRTIO_BLK_F_FLUSH;
    optional
        .into_iter()
        .filter(|(offered, _)| *offered)
        .fold(always, |features, (_, bit)| features | 1 << bit)
}

/// `struct virtio_blk_config` up to `write_zeroes_may_unmap`; fields without a feature bit are zero.
pub(crate) fn space(image: &Image, queues: u16, writeback: bool) -> Vec<u8> {
    let geometry = image.geometry();
    let capacity = image.len() / SECTOR;
    let size_max = 0u32;
    let cylinders_heads_sectors = [0u8; 4];
    let block_size = geometry.logical;
    let topology = geometry.topology();
    let writeback_and_unused = [u8::from(writeback && !image.is_read_only()), 0];
    let nothing = RangeLimits::NONE;
    let (discard, zeroes) =
        if image.is_read_only() { (nothing, nothing) } else { (DISCARD, WRITE_ZEROES) };
    // Any block may be the first or last of a range; the file system rounds to its own units.
    let discard_alignment =
        if image.is_read_only() { 0 } else { (u64::from(block_size) / SECTOR) as u32 };
    let may_unmap_and_unused = [u8::from(!image.is_read_only()), 0, 0, 0];
    [
        &capacity.to_le_bytes()[..],
        &size_max.to_le_bytes(),
        &SEGMENTS.to_le_bytes(),
        &cylinders_heads_sectors,
        &block_size.to_le_bytes(),
        &topology,
        &writeback_and_unused,
        &queues.to_le_bytes(),
        &discard.sectors.to_le_bytes(),
        &discard.count.to_le_bytes(),
        &discard_alignment.to_le_bytes(),
        &zeroes.sectors.to_le_bytes(),
        &zeroes.count.to_le_bytes(),
        &may_unmap_and_unused,
    ]
    .concat()
}
