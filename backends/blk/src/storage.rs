//! What a disk image stores its bytes in: the seam between requests and formats. Calls block; the
//! caller has checked that a range is within the disk.

use std::fmt::Debug;
use std::io;

use atoll_backend::{Reader, Writer};

use crate::image::ImageError;
use crate::ranges::Range;
use crate::raw::Raw;

/// The bytes of a disk, whatever the format they are stored in.
pub(crate) trait Storage: Debug + Send + Sync {
    /// Begins to use the files, which others may have changed: their locks are ours now.
    fn begin(&self) -> Result<(), ImageError>;

    /// Ends that: all is in the files, and nothing kept, when it returns.
    fn end(&self);

    /// The disk's length in bytes, as far as the files say it.
    fn len(&self) -> io::Result<u64>;

    /// Fills `data` with what is at `offset`.
    fn read_at(&self, offset: u64, data: &mut Writer<'_>) -> io::Result<()>;

    /// Writes `data` to `offset`. The death of this process does not undo it.
    fn write_at(&self, offset: u64, data: &mut Reader<'_>) -> io::Result<()>;

    /// Gives the space of `range` back to the host, where the host can take it: it is advice.
    fn discard(&self, range: Range) -> io::Result<()>;

    /// Makes `range` read as zeroes; it keeps its space unless it may be unmapped.
    fn write_zeroes(&self, range: Range) -> io::Result<()>;

    /// Returns when all that was written before is on stable storage.
    fn flush(&self) -> io::Result<()>;

    /// The file of the disk's bytes, where there is one.
    fn raw(&self) -> Option<&Raw> {
        None
    }

    /// Makes the disk longer.
    fn grow(&self, len: u64) -> io::Result<()>;
}
