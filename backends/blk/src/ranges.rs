//! The ranges of sectors that a discard or write-zeroes request names, and their limits (virtio 1.3
//! §5.2.4, §5.2.6). It does no I/O.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use atoll_backend::Reader;
use virtio_bindings::virtio_blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

use crate::geometry::SECTOR;
use crate::request::{BadRequest, Limits};

/// `struct virtio_blk_discard_write_zeroes`.
const RANGE: usize = 16;

/// What the ranges of one kind of request may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RangeLimits {
    pub(crate) count: u32,
    pub(crate) sectors: u32,
    /// The flags that a range may have.
    flags: u32,
}

impl RangeLimits {
    /// Of what is not offered.
    pub(crate) const NONE: Self = Self { count: 0, sectors: 0, flags: 0 };
}

/// 1 GiB a range: punching holes takes little time, whatever their size.
pub(crate) const DISCARD: RangeLimits = RangeLimits { count: 16, sectors: 1 << 21, flags: 0 };

/// 64 MiB in one range: where the file system can't do it, they are written.
pub(crate) const WRITE_ZEROES: RangeLimits =
    RangeLimits { count: 1, sectors: 1 << 17, flags: VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP };

/// One range within the disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Whether the space may be given back to the host.
    pub(crate) unmap: bool,
}

/// The ranges of one request: at least one, and not more than its [`RangeLimits`] allow.
pub(crate) struct Ranges(Vec<Range>);

impl Ranges {
    pub(crate) fn parse(
        data: &mut Reader<'_>,
        disk: Limits,
        limits: RangeLimits,
    ) -> Result<Self, BadRequest> {
        let len = data.len();
        let count = len.checked_div(RANGE).filter(|_| len.is_multiple_of(RANGE));
        if !count.is_some_and(|count| (1..=limits.count as usize).contains(&count)) {
            return Err(BadRequest::RangeCount { len, max: limits.count });
        }
        let words = std::iter::from_fn(|| data.read_obj::<[u32; 4]>());
        words
            .map(|words| range(words.map(u32::from_le), disk, limits))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Where the first one begins.
    pub(crate) fn offset(&self) -> Option<u64> {
        self.0.first().map(|range| range.offset)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.0.iter().copied()
    }
}

fn range(words: [u32; 4], disk: Limits, limits: RangeLimits) -> Result<Range, BadRequest> {
    let [sector_low, sector_high, sectors, flags] = words;
    if flags & !limits.flags != 0 {
        return Err(BadRequest::RangeFlags { flags });
    }
    if sectors > limits.sectors {
        return Err(BadRequest::LongRange { sectors, max: limits.sectors });
    }
    let sector = u64::from(sector_high) << 32 | u64::from(sector_low);
    let len = u64::from(sectors).saturating_mul(SECTOR);
    // At most 1 GiB.
    let offset = disk.offset(sector, len as usize)?;
    Ok(Range { offset, len, unmap: flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 })
}

#[cfg(test)]
#[path = "ranges_test.rs"]
mod tests;
