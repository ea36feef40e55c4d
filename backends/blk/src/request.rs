//! A block request, parsed and checked before anything is done (virtio 1.3 §5.2.6). It does no I/O.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::fmt;

use atoll_backend::{Chain, ChainFault, Reader, Transfer, Writer};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use crate::geometry::SECTOR;
use crate::ranges::{self, Ranges};

/// The length of a request's header, behind which its data are.
pub(crate) const HEADER: usize = 16;

/// What a request is checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The disk's length in bytes.
    pub(crate) len: u64,
    pub(crate) read_only: bool,
    /// What offsets and lengths are multiples of.
    pub(crate) block: u32,
}

/// What the driver asks for.
pub(crate) enum Action<'chain> {
    Read { offset: u64, data: Writer<'chain> },
    Write { offset: u64, data: Reader<'chain> },
    Flush,
    Discard { ranges: Ranges },
    WriteZeroes { ranges: Ranges },
    GetId { data: Writer<'chain> },
}

/// What a request is about, as the log says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    what: &'static str,
    /// The offset in bytes of what it begins with, where it is about a place.
    offset: Option<u64>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "{} at sector {}", self.what, offset.wrapping_div(SECTOR)),
            None => f.write_str(self.what),
        }
    }
}

impl Subject {
    pub(crate) fn of(transfer: Transfer) -> Self {
        let (what, offset) = match transfer {
            Transfer::Read { offset } => (READ, Some(offset)),
            Transfer::Write { offset, .. } => (WRITE, Some(offset)),
            Transfer::Sync => (FLUSH, None),
        };
        Self { what, offset }
    }
}

const READ: &str = "a read";
const WRITE: &str = "a write";
const FLUSH: &str = "a flush";

impl Action<'_> {
    pub(crate) fn subject(&self) -> Subject {
        let (what, offset) = match self {
            Self::Read { offset, .. } => (READ, Some(*offset)),
            Self::Write { offset, .. } => (WRITE, Some(*offset)),
            Self::Flush => (FLUSH, None),
            Self::Discard { ranges } => ("a discard", ranges.offset()),
            Self::WriteZeroes { ranges } => ("a write of zeroes", ranges.offset()),
            Self::GetId { .. } => ("a request for the serial number", None),
        };
        Subject { what, offset }
    }
}

/// A request that can be acted on.
pub(crate) struct Request<'chain> {
    /// Its status goes to the chain's last byte.
    pub(crate) action: Action<'chain>,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error(transparent)]
    Chain(ChainFault),
    #[error("{len} bytes are too few for a request's header")]
    NoHeader { len: usize },
    #[error("there is no room for the status")]
    NoStatus,
    #[error("the request type {kind} is unknown")]
    Unknown { kind: u32 },
    #[error("{len} bytes are not whole sectors")]
    PartialSector { len: usize },
    #[error("{len} bytes at sector {sector} are not whole blocks of {block}")]
    PartialBlock { sector: u64, len: usize, block: u32 },
    #[error("{len} bytes at sector {sector} are beyond the end of the disk")]
    BeyondEnd { sector: u64, len: usize },
    #[error("the disk is read-only")]
    ReadOnly,
    #[error("{len} bytes are not 1 to {max} ranges of sectors")]
    RangeCount { len: usize, max: u32 },
    #[error("{sectors} sectors are more than the {max} that one range may have")]
    LongRange { sectors: u32, max: u32 },
    #[error("the flags {flags:#x} of a range mean nothing here")]
    RangeFlags { flags: u32 },
}

impl BadRequest {
    /// The status to fail the request with.
    pub(crate) fn status(self) -> u8 {
        let status = match self {
            // virtio 1.3 §5.2.6.2: flags that are not known are not supported either.
            Self::Unknown { .. } | Self::RangeFlags { .. } => VIRTIO_BLK_S_UNSUPP,
            _ => VIRTIO_BLK_S_IOERR,
        };
        status as u8
    }
}

impl<'chain> Request<'chain> {
    /// virtio 1.3 §5.2.6: a header of type, reserved and sector, the data, a byte of status; where
    /// one buffer ends and the next begins means nothing (§2.7.4).
    pub(crate) fn parse(chain: &'chain Chain, limits: Limits) -> Result<Self, BadRequest> {
        let (mut header, mut room) = chain.buffers().map_err(BadRequest::Chain)?;
        let before_status = room.len().checked_sub(1).ok_or(BadRequest::NoStatus)?;
        let _status = room.split_off(before_status);
        let len = header.len();
        let [kind, _reserved, sector_low, sector_high]: [u32; 4] =
            header.read_obj::<[u32; 4]>().ok_or(BadRequest::NoHeader { len })?.map(u32::from_le);
        let sector = u64::from(sector_high) << 32 | u64::from(sector_low);
        let mut data = header;
        let action = match kind {
            VIRTIO_BLK_T_IN => {
                Action::Read { offset: limits.offset(sector, room.len())?, data: room }
            }
            VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES
                if limits.read_only =>
            {
                return Err(BadRequest::ReadOnly);
            }
            VIRTIO_BLK_T_OUT => Action::Write { offset: limits.offset(sector, data.len())?, data },
            VIRTIO_BLK_T_FLUSH => Action::Flush,
            VIRTIO_BLK_T_DISCARD => {
                Action::Discard { ranges: Ranges::parse(&mut data, limits, ranges::DISCARD)? }
            }
            VIRTIO_BLK_T_WRITE_ZEROES => {
                let ranges = Ranges::parse(&mut data, limits, ranges::WRITE_ZEROES)?;
                Action::WriteZeroes { ranges }
            }
            VIRTIO_BLK_T_GET_ID => Action::GetId { data: room },
            kind => return Err(BadRequest::Unknown { kind }),
        };
        Ok(Self { action })
    }
}

impl Limits {
    /// The offset in bytes of a range of whole sectors that is within the disk.
    pub(crate) fn offset(self, sector: u64, len: usize) -> Result<u64, BadRequest> {
        let bytes = len as u64;
        if !bytes.is_multiple_of(SECTOR) {
            return Err(BadRequest::PartialSector { len });
        }
        let block = u64::from(self.block);
        let offset = sector.checked_mul(SECTOR);
        if !bytes.is_multiple_of(block) || !offset.is_none_or(|at| at.is_multiple_of(block)) {
            return Err(BadRequest::PartialBlock { sector, len, block: self.block });
        }
        offset
            .filter(|offset| offset.checked_add(bytes).is_some_and(|end| end <= self.len))
            .ok_or(BadRequest::BeyondEnd { sector, len })
    }
}

#[cfg(test)]
#[path = "request_test.rs"]
mod tests;
