//! Port and memory-mapped buses: which device answers at which address.
//!
//! A bus knows ranges and nothing of what answers in them. vCPU threads only read the table; the
//! guest changes it when it moves a BAR.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Something that answers reads and writes in a range of a [`Bus`].
///
/// Called on a vCPU thread, so neither method may wait for another process. `offset` is relative
/// to the start of the range; `data` is 1 to 8 bytes in little-endian order, never beyond the
/// range's end.
pub trait BusDevice: Send + Sync {
    /// Fills `data` with what the guest reads at `offset`.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Takes what the guest wrote at `offset`.
    fn write(&self, offset: u64, data: &[u8]);
}

/// The range asked for meets one that is taken.
#[derive(Debug, thiserror::Error)]
#[error("{name} at {start:#x} with {len:#x} bytes overlaps another device's range")]
pub struct Overlap {
    name: &'static str,
    start: u64,
    len: u64,
}

struct Range {
    len: u64,
    device: Arc<dyn BusDevice>,
}

/// An address space (ports or memory) with devices at ranges of it.
#[derive(Default)]
pub struct Bus {
    ranges: RwLock<BTreeMap<u64, Range>>,
}

impl Bus {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `device` at `[start, start + len)`.
    ///
    /// # Errors
    /// [`Overlap`] when any byte of the range is taken, or the range is empty or wraps around.
    pub fn insert(
        &self,
        name: &'static str,
        start: u64,
        len: u64,
        device: Arc<dyn BusDevice>,
    ) -> Result<(), Overlap> {
        let overlap = Overlap { name, start, len };
        let Some(last) = len.checked_sub(1).and_then(|span| start.checked_add(span)) else {
            return Err(overlap);
        };
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        let taken = ranges
            .range(..=last)
            .next_back()
            .is_some_and(|(&other, range)| other.saturating_add(range.len) > start);
        if taken {
            return Err(overlap);
        }
        ranges.insert(start, Range { len, device });
        Ok(())
    }

    /// Takes away the device whose range starts at `start`, if there is one.
    pub fn remove(&self, start: u64) {
        self.ranges.write().unwrap_or_else(PoisonError::into_inner).remove(&start);
    }

    /// Reads at `address`. Where nothing answers all bits are one, as on a real bus.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((device, offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes at `address`. Where nothing answers the write is lost, as on a real bus.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(address, data.len()) {
            device.write(offset, data);
        }
    }

    /// The device whose range holds all `len` bytes from `address`, and the offset in it.
    fn find(&self, address: u64, len: usize) -> Option<(Arc<dyn BusDevice>, u64)> {
        // The lock is let go before the device runs: a device may move its own ranges.
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let (&start, range) = ranges.range(..=address).next_back()?;
        let offset = address.checked_sub(start)?;
        let end = offset.checked_add(u64::try_from(len).ok()?)?;
        (end <= range.len).then(|| (Arc::clone(&range.device), offset))
    }
}

#[cfg(test)]
#[path = "bus_test.rs"]
mod tests;
