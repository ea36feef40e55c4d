//! Mapping of files that a front-end shares: guest memory and the in-flight region. What becomes of
//! a mapping when its file is cut short is another's.

use std::fs::File;
use std::io;

use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion};

use crate::lost_memory::Watched;

/// The file can't be mapped as asked for.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Its length can't be found out.
    #[error("cannot look at the file")]
    Look(#[source] io::Error),
    /// It ends before the range, where each access would kill this process.
    #[error("the file of {file:#x} bytes ends before {end:#x}")]
    Short {
        /// Its length.
        file: u64,
        /// The end of the range.
        end: u64,
    },
    /// The system refuses to.
    #[error("cannot map the file")]
    Map(#[source] MmapRegionError),
}

/// Shared memory, mapped.
pub(crate) struct Mapped {
    /// Ends with the mapping, and before it.
    pub(crate) watched: Watched,
    pub(crate) region: MmapRegion<()>,
}

/// Maps `len` bytes of `file` from `offset` on.
pub(crate) fn map(file: File, offset: u64, len: u64) -> Result<Mapped, MapError> {
    let metadata = file.metadata().map_err(MapError::Look)?;
    let end = offset.saturating_add(len);
    // Devices have no length, and check for themselves.
    if metadata.is_file() && end > metadata.len() {
        return Err(MapError::Short { file: metadata.len(), end });
    }
    // Only 64-bit hosts are supported, where every u64 is a usize.
    let region = MmapRegion::from_file(FileOffset::new(file, offset), len as usize)
        .map_err(MapError::Map)?;
    let watched = Watched::new(region.as_ptr(), region.size());
    Ok(Mapped { watched, region })
}
