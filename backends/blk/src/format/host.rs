//! A file as `imago` reads and writes it, which sees to the order that `imago` does not: what a
//! table refers to is on stable storage before the table says so, whenever the power goes. It knows
//! where the tables of a qcow2 image are, and nothing of what its clusters hold.

#![expect(unsafe_code, reason = "the crate's trait has unsafe functions; none is called here")]

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use imago::Storage;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::drivers::CommonStorageHelper;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::load::{be32, be64};
use crate::file::ImageFile;

/// By how much a file becomes longer at once.
const STEP: u64 = 16 << 20;
/// As much of a header as says where the tables are.
const HEADER: u64 = 104;

/// One file of an image. Clones are the same file.
#[derive(Clone, Debug)]
pub(super) struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: ImageFile,
    /// Behind all that was written.
    end: AtomicU64,
    /// For a file whose bytes are to be found after a power cut.
    order: Option<Order>,
    helper: CommonStorageHelper,
    #[cfg(test)]
    journal: Mutex<Vec<Event>>,
}

#[derive(Debug)]
struct Order {
    /// Where the tables are to which the header points. They seldom change.
    tables: RwLock<[Range<u64>; 2]>,
    /// The file's length that a power cut leaves; where the file can grow.
    reserved: Option<Mutex<u64>>,
    /// Nothing has been written behind it, as far as stable storage knows.
    settled: AtomicU64,
}

/// What happens to a file whose power is cut, in tests.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(super) enum Event {
    Write(u64, Vec<u8>),
    Zero(u64, u64),
    Len(u64),
    Settled,
}

impl Host {
    /// A file that is only read, or whose bytes nobody needs after a power cut.
    pub(super) fn unordered(file: ImageFile) -> io::Result<Self> {
        Self::new(file, None)
    }

    /// A qcow2 image that is written to.
    pub(super) fn ordered(file: ImageFile) -> io::Result<Self> {
        let len = file.len()?;
        let order = Order {
            tables: RwLock::new(tables(&file)?),
            // A block device stays as long as it is.
            reserved: file.file().metadata()?.is_file().then(|| Mutex::new(len)),
            settled: AtomicU64::new(len),
        };
        Self::new(file, Some(order))
    }

    fn new(file: ImageFile, order: Option<Order>) -> io::Result<Self> {
        let end = AtomicU64::new(file.len()?);
        let helper = CommonStorageHelper::default();
        #[cfg(test)]
        let journal = Mutex::default();
        Ok(Self(Arc::new(Inner {
            file,
            end,
            order,
            helper,
            #[cfg(test)]
            journal,
        })))
    }

    /// Returns when all that was written before is on stable storage, where that matters.
    pub(super) fn settle(&self) -> io::Result<()> {
        let Some(order) = &self.0.order else {
            return Ok(());
        };
        let end = self.0.end.load(Ordering::Acquire);
        self.0.file.file().sync_data()?;
        order.settled.fetch_max(end, Ordering::AcqRel);
        #[cfg(test)]
        self.note(Event::Settled);
        Ok(())
    }

    /// Whether something else may have been at `offset` before: then a power cut can bring it back,
    /// which the end of a file reads as zeroes.
    pub(super) fn is_reused(&self, offset: u64) -> bool {
        let order = self.0.order.as_ref();
        order.is_some_and(|order| offset < order.settled.load(Ordering::Acquire))
    }

    /// Gives the space of a range to which nothing refers any more back to the file system, if it
    /// takes it.
    pub(super) fn punch(&self, range: &Range<u64>) {
        let len = range.end.saturating_sub(range.start);
        if let Err(errno) = self.zero(range.start, len) {
            tracing::debug!("cannot punch a hole: {errno}");
        }
    }

    /// Makes the file as short as what is in it.
    pub(super) fn trim(&self) -> io::Result<()> {
        let reserved = self.0.order.as_ref().and_then(|order| order.reserved.as_ref());
        if let Some(mut reserved) = reserved.map(lock) {
            let end = self.0.end.load(Ordering::Acquire);
            if end < *reserved {
                self.0.file.file().set_len(end)?;
                *reserved = end;
            }
        }
        Ok(())
    }

    /// Makes the file long enough before anything refers to what is there: a power cut could
    /// otherwise leave a table that refers to what is beyond the end.
    fn reserve(&self, end: u64) -> io::Result<()> {
        if let Some(order) = &self.0.order
            && let Some(mut reserved) = order.reserved.as_ref().map(lock)
            && *reserved < end
        {
            let len = end.checked_next_multiple_of(STEP).ok_or(io::ErrorKind::FileTooLarge)?;
            self.0.file.file().set_len(len)?;
            #[cfg(test)]
            self.note(Event::Len(len));
            self.settle()?;
            *reserved = len;
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.reserve(end)?;
        let (header, table) = self
            .0
            .order
            .as_ref()
            .map_or((false, false), |order| (offset < HEADER, order.is_table(&(offset..end))));
        if header || table {
            self.settle()?;
        }
        self.0.file.write_all_at(bytes, offset)?;
        self.0.end.fetch_max(end, Ordering::AcqRel);
        #[cfg(test)]
        self.note(Event::Write(offset, bytes.to_vec()));
        if header && let Some(order) = &self.0.order {
            // The table that it pointed to until now is given up at once.
            self.settle()?;
            *order.tables.write().unwrap_or_else(PoisonError::into_inner) = tables(&self.0.file)?;
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let (Ok(start), Ok(length)) = (libc::off_t::try_from(offset), libc::off_t::try_from(len))
        else {
            return Err(Errno::EFBIG);
        };
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        while let Err(errno) = fallocate(self.0.file.file(), mode, start, length) {
            if errno != Errno::EINTR {
                return Err(errno);
            }
        }
        #[cfg(test)]
        self.note(Event::Zero(offset, len));
        Ok(())
    }

    #[cfg(test)]
    fn note(&self, event: Event) {
        lock(&self.0.journal).push(event);
    }

    /// What happened since the last call.
    #[cfg(test)]
    pub(super) fn take_journal(&self) -> Vec<Event> {
        std::mem::take(&mut lock(&self.0.journal))
    }
}

impl Order {
    fn is_table(&self, range: &Range<u64>) -> bool {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.iter().any(|table| range.start < table.end && table.start < range.end)
    }
}

/// Where the L1 table and the refcount table of a qcow2 image are.
fn tables(file: &ImageFile) -> io::Result<[Range<u64>; 2]> {
    let mut header = [0; HEADER as usize];
    file.read_or_zero(&mut header, 0)?;
    let long = |at| be64(&header, at).unwrap_or(0);
    let word = |at| be32(&header, at).unwrap_or(0);
    let cluster = 1u64.wrapping_shl(word(20));
    let range = |offset: u64, len: u64| offset..offset.saturating_add(len);
    Ok([
        range(long(40), u64::from(word(36)).saturating_mul(8)),
        range(long(48), u64::from(word(56)).saturating_mul(cluster)),
    ])
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the image")
    }
}

// That writes keep out of each other's way, as the functions' callers promise, is of no interest
// here, for they are whole blocks.
impl Storage for Host {
    fn mem_align(&self) -> usize {
        self.0.file.memory_alignment()
    }

    fn req_align(&self) -> usize {
        self.0.file.offset_alignment()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.end.load(Ordering::Acquire))
    }

    unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let mut offset = offset;
        for mut bytes in bufv.into_inner() {
            self.0.file.read_or_zero(&mut bytes, offset)?;
            offset = offset.saturating_add(bytes.len() as u64);
        }
        Ok(())
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        let mut offset = offset;
        for bytes in bufv.into_inner() {
            self.write(offset, &bytes)?;
            offset = offset.saturating_add(bytes.len() as u64);
        }
        Ok(())
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.checked_add(length).ok_or(io::ErrorKind::FileTooLarge)?;
        self.reserve(end)?;
        self.zero(offset, length).map_err(|errno| match errno {
            // They are written instead.
            Errno::EOPNOTSUPP => io::ErrorKind::Unsupported.into(),
            errno => io::Error::from(errno),
        })?;
        self.0.end.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.settle()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.0.helper
    }
}

#[cfg(test)]
#[path = "host_test.rs"]
mod tests;
