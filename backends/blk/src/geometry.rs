//! The sizes that a disk tells its driver: what it can address, and what it does well. It does no
//! I/O.

use crate::options::Options;

/// The unit of virtio-blk, whatever the disk's own (virtio 1.3 §5.2.4).
pub(crate) const SECTOR: u64 = 512;

/// The sizes make no disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// Past the page cache the host's disk takes whole blocks of its own only.
    #[error(
        "--cache=none takes blocks of {needed} bytes here, not of {asked}; --logical-block-size={needed} \
         makes them"
    )]
    SmallBlocks {
        /// What was asked for.
        asked: u32,
        /// What the host's disk takes.
        needed: u32,
    },
    /// A physical block is made of logical ones.
    #[error("physical blocks of {physical} bytes are smaller than logical ones of {logical}")]
    SmallPhysical {
        /// As asked.
        physical: u32,
        /// As asked, or as they have to be.
        logical: u32,
    },
    /// The driver is told in blocks.
    #[error("{option}={size} is not a multiple of the block size {logical}, or too large")]
    OddSize {
        /// Which one.
        option: &'static str,
        /// As asked.
        size: u32,
        /// The block size.
        logical: u32,
    },
}

/// The sizes of a disk's blocks and best requests, in bytes; zero says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// What requests are multiples of.
    pub(crate) logical: u32,
    pub(crate) physical: u32,
    pub(crate) min_io: u32,
    pub(crate) opt_io: u32,
}

impl Geometry {
    /// As the options say, on a file that takes multiples of `needed` bytes.
    pub(crate) fn new(options: &Options, needed: u32) -> Result<Self, GeometryError> {
        let logical = options.logical_block_size.unwrap_or(needed);
        let physical = options.physical_block_size.unwrap_or(logical);
        if logical < needed {
            return Err(GeometryError::SmallBlocks { asked: logical, needed });
        }
        if physical < logical {
            return Err(GeometryError::SmallPhysical { physical, logical });
        }
        let in_blocks = |option, size: Option<u32>, most: u32| {
            let size = size.unwrap_or(0);
            if size.is_multiple_of(logical) && size / logical <= most {
                Ok(size)
            } else {
                Err(GeometryError::OddSize { option, size, logical })
            }
        };
        let min_io = in_blocks("--min-io-size", options.min_io_size, u16::MAX.into())?;
        let opt_io = in_blocks("--opt-io-size", options.opt_io_size, u32::MAX)?;
        Ok(Self { logical, physical, min_io, opt_io })
    }

    /// Whether there is more to tell than the size of blocks.
    pub(crate) fn has_topology(&self) -> bool {
        self.physical > self.logical || self.min_io > 0 || self.opt_io > 0
    }

    /// `struct virtio_blk_topology` (virtio 1.3 §5.2.4).
    pub(crate) fn topology(&self) -> [u8; 8] {
        let physical_block_exp = (self.physical / self.logical).ilog2() as u8;
        let alignment_offset = 0;
        // At most what the fields hold.
        let [min_low, min_high] = ((self.min_io / self.logical) as u16).to_le_bytes();
        let [a, b, c, d] = (self.opt_io / self.logical).to_le_bytes();
        [physical_block_exp, alignment_offset, min_low, min_high, a, b, c, d]
    }
}
