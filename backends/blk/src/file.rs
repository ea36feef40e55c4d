//! A file of an image: read and written at any offset and from any memory, also where that goes past
//! the page cache, whose kernel side takes whole blocks only. Who writes parts of the same block at
//! once has to see to it that they don't meet; it knows no format.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use atoll_backend::{DirectAlignment, make_direct};

/// How much is copied at once where the kernel does not take the caller's own memory.
const CHUNK: usize = 64 << 10;

/// A file of an image.
#[derive(Debug)]
pub(crate) struct ImageFile {
    file: File,
    /// What the kernel wants of requests past the page cache, where they go there.
    direct: Option<DirectAlignment>,
}

impl ImageFile {
    /// `file`, from now on past the page cache where that is asked for.
    ///
    /// # Errors
    /// The kernel's, when its file system can't do that.
    pub(crate) fn new(file: File, past_cache: bool) -> io::Result<Self> {
        let direct = if past_cache { Some(make_direct(&file)?) } else { None };
        Ok(Self { file, direct })
    }

    /// A file whose requests are multiples of something though its file system takes any.
    #[cfg(test)]
    pub(crate) fn with_alignment(file: File, direct: Option<DirectAlignment>) -> Self {
        Self { file, direct }
    }

    /// The same file, with the same locks.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, direct: self.direct })
    }

    /// For all but its bytes.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn direct(&self) -> Option<DirectAlignment> {
        self.direct
    }

    /// The multiples at which the kernel takes memory.
    pub(crate) fn memory_alignment(&self) -> usize {
        self.direct.map_or(1, |direct| direct.memory as usize)
    }

    /// The multiples of which the kernel takes offsets and lengths.
    pub(crate) fn offset_alignment(&self) -> usize {
        self.direct.map_or(1, |direct| direct.offset as usize)
    }

    /// Its length. The metadata of a block device don't say it; nothing else uses the position.
    pub(crate) fn len(&self) -> io::Result<u64> {
        (&self.file).seek(SeekFrom::End(0))
    }

    /// Fills `bytes`; beyond the end of the file are zeros, as the last cluster may end early.
    pub(crate) fn read_or_zero(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if self.takes(bytes, offset) {
            return self.read_whole(bytes, offset);
        }
        let mut window = Window::new(self, bytes.len());
        let (mut rest, mut offset) = (bytes, offset);
        while !rest.is_empty() {
            let (start, within, count) = window.at(offset, rest.len());
            self.read_whole(window.bytes(within.saturating_add(count)), start)?;
            let (here, after) = rest.split_at_mut(count);
            here.copy_from_slice(window.part(within, count));
            offset = offset.saturating_add(count as u64);
            rest = after;
        }
        Ok(())
    }

    /// Writes all of `bytes`. Past the page cache the file then ends with a whole block.
    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.takes(bytes, offset) {
            return self.file.write_all_at(bytes, offset);
        }
        let mut window = Window::new(self, bytes.len());
        let (mut rest, mut offset) = (bytes, offset);
        while !rest.is_empty() {
            let (start, within, count) = window.at(offset, rest.len());
            let whole = window.bytes(within.saturating_add(count));
            self.read_whole(whole, start)?;
            let (here, after) = rest.split_at(count);
            window.part(within, count).copy_from_slice(here);
            self.file.write_all_at(window.bytes(within.saturating_add(count)), start)?;
            offset = offset.saturating_add(count as u64);
            rest = after;
        }
        Ok(())
    }

    /// Whether the kernel takes this memory and place.
    fn takes(&self, bytes: &[u8], offset: u64) -> bool {
        let (memory, unit) = (self.memory_alignment(), self.offset_alignment());
        bytes.as_ptr().addr().is_multiple_of(memory)
            && bytes.len().is_multiple_of(unit)
            && offset.is_multiple_of(unit as u64)
    }

    fn read_whole(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let (mut rest, mut offset) = (bytes, offset);
        while !rest.is_empty() {
            match self.file.read_at(rest, offset) {
                // Also where the end of the file is within a block: the kernel looks for it first.
                Ok(0) => {
                    rest.fill(0);
                    break;
                }
                Ok(count) => {
                    rest = rest.get_mut(count..).unwrap_or_default();
                    offset = offset.saturating_add(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whole blocks around a part of a file, in memory that the kernel takes.
struct Window {
    memory: Aligned,
    unit: usize,
}

impl Window {
    /// Room for `len` bytes anywhere, or for as many as are copied at once.
    fn new(file: &ImageFile, len: usize) -> Self {
        let unit = file.offset_alignment();
        let len = len.min(CHUNK).next_multiple_of(unit).saturating_add(unit);
        Self { memory: Aligned::new(len, file.memory_alignment()), unit }
    }

    /// Where the blocks begin that hold `offset`, how far behind that it is, and how many of `len`
    /// bytes from there on there is room for.
    fn at(&self, offset: u64, len: usize) -> (u64, usize, usize) {
        let within = offset.checked_rem(self.unit as u64).unwrap_or(0);
        let room = self.memory.len.saturating_sub(within as usize);
        (offset.saturating_sub(within), within as usize, len.min(room))
    }

    /// The blocks that hold the first `end` bytes.
    fn bytes(&mut self, end: usize) -> &mut [u8] {
        self.memory.bytes(end.next_multiple_of(self.unit))
    }

    fn part(&mut self, within: usize, count: usize) -> &mut [u8] {
        let end = within.saturating_add(count);
        self.bytes(end).get_mut(within..end).unwrap_or_default()
    }
}

/// Zeroes that begin at a multiple of something.
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(crate) fn new(len: usize, alignment: usize) -> Self {
        let bytes = vec![0; len.saturating_add(alignment)];
        let start = bytes.as_ptr().align_offset(alignment);
        Self { bytes, start, len }
    }

    /// At most `count` of them.
    pub(crate) fn bytes(&mut self, count: usize) -> &mut [u8] {
        let end = self.start.saturating_add(self.len.min(count));
        self.bytes.get_mut(self.start..end).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "file_test.rs"]
mod tests;
