//! The reference counts of a qcow2 image against what its tables refer to: checked before the image
//! is written to, as a cluster in use that counts as free would be given away; and made right
//! where the image was not closed, because its process died.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use super::header::{Defect, Header};
use super::load::{store, table};
use crate::file::ImageFile;

const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const L1_RESERVED: u64 = 0x7f00_0000_0000_01fe | 1;
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// Beyond this the counts would take more memory than we want to take for it (256 MiB).
const MAX_CLUSTERS: u64 = 1 << 27;

/// How often each cluster of the file is referred to.
struct Uses<'a> {
    file: &'a ImageFile,
    header: &'a Header,
    len: u64,
    counts: Vec<u16>,
    /// Where the L2 tables are.
    l2_tables: Vec<u64>,
    /// Where the refcount blocks are, by index; zero for none.
    blocks: Vec<u64>,
}

/// Fails unless every cluster is counted as often as it is used, or more often where `leaks` do not
/// matter.
pub(super) fn check(file: &ImageFile, header: &Header, leaks: bool) -> Result<(), Defect> {
    let uses = Uses::collect(file, header)?;
    if !leaks && let Some(offset) = uses.end().filter(|end| *end < uses.len) {
        return Err(Defect::Refcounts { offset });
    }
    let per_block = uses.per_block();
    for (index, counts) in uses.counts.chunks(per_block).enumerate() {
        let block = uses.blocks.get(index).copied().unwrap_or(0);
        let stored = if block == 0 { Vec::new() } else { uses.load_block(block)? };
        for (within, count) in counts.iter().enumerate() {
            let stored = stored_count(&stored, within, header.refcount_order);
            if u64::from(*count) > stored || !leaks && u64::from(*count) < stored {
                let cluster = (index as u64).saturating_mul(per_block as u64);
                let cluster = cluster.saturating_add(within as u64);
                return Err(Defect::Refcounts {
                    offset: cluster.wrapping_shl(header.cluster_bits),
                });
            }
        }
    }
    Ok(())
}

/// Counts anew, and stores the counts.
pub(super) fn repair(file: &ImageFile, header: &Header) -> Result<(), Defect> {
    let mut uses = Uses::collect(file, header)?;
    let added = uses.cover()?;
    uses.restore_copied()?;
    let per_block = uses.per_block();
    for (index, block) in uses.blocks.iter().enumerate().filter(|(_, block)| **block != 0) {
        let start = index.saturating_mul(per_block);
        let counts = uses.counts.get(start..).unwrap_or_default();
        let counts = counts.get(..per_block.min(counts.len())).unwrap_or_default();
        let bytes = encode(counts, header)?;
        file.write_all_at(&bytes, *block)?;
    }
    // What the table refers to is there before it does.
    if added {
        file.file().sync_data()?;
        store(file, header.reftable_offset, &uses.blocks)?;
    }
    // Behind what is in use may be what was being written, or the room that was reserved for it.
    if let Some(end) = uses.end().filter(|end| *end < uses.len)
        && file.file().metadata()?.is_file()
    {
        file.file().set_len(end)?;
    }
    file.file().sync_all()?;
    Ok(())
}

impl<'a> Uses<'a> {
    fn collect(file: &'a ImageFile, header: &'a Header) -> Result<Self, Defect> {
        let len = file.len()?;
        let clusters = len.div_ceil(header.cluster_size());
        if clusters > MAX_CLUSTERS {
            return Err(Defect::Field { field: "its file's number of clusters", value: clusters });
        }
        let blocks = table(file, header.reftable_offset, header.reftable_entries)?;
        let counts = vec![0; clusters as usize];
        let mut uses = Self { file, header, len, counts, l2_tables: Vec::new(), blocks };
        let cluster = header.cluster_size();
        uses.count("its header", 0, cluster)?;
        uses.count("its L1 table", header.l1_offset, (header.l1_entries as u64).saturating_mul(8))?;
        let reftable = (header.reftable_entries as u64).saturating_mul(8);
        uses.count("its refcount table", header.reftable_offset, reftable)?;
        for block in uses.blocks.clone() {
            uses.check_offset("its refcount table", block, block)?;
            if block != 0 {
                uses.count("a refcount block", block, cluster)?;
            }
        }
        for entry in table(file, header.l1_offset, header.l1_entries)? {
            let offset = entry & OFFSET;
            if entry & L1_RESERVED != 0 {
                return Err(Defect::Entry { table: "its L1 table", entry });
            }
            uses.check_offset("its L1 table", entry, offset)?;
            if offset != 0 {
                uses.count("an L2 table", offset, cluster)?;
                // Nor may the next loop read one again and again.
                uses.alone(offset, cluster)?;
                uses.l2_tables.push(offset);
            }
        }
        for l2_table in uses.l2_tables.clone() {
            for entry in uses.load_l2(l2_table)? {
                uses.count_data(entry)?;
            }
        }
        uses.alone(0, cluster)?;
        uses.alone(header.l1_offset, (header.l1_entries as u64).saturating_mul(8))?;
        uses.alone(header.reftable_offset, reftable)?;
        for table in uses.l2_tables.iter().chain(uses.blocks.iter().filter(|block| **block != 0)) {
            uses.alone(*table, cluster)?;
        }
        Ok(uses)
    }

    fn count_data(&mut self, entry: u64) -> Result<(), Defect> {
        if entry & COMPRESSED != 0 {
            // The upper bits of the rest are a number of 512-byte sectors behind the first.
            let bits = 70u32.saturating_sub(self.header.cluster_bits);
            let low = 1u64.wrapping_shl(bits).wrapping_sub(1);
            let offset = entry & low & 0x00ff_ffff_ffff_ffff;
            let sectors = (entry & (COMPRESSED.wrapping_sub(1))).wrapping_shr(bits);
            let end = (offset & !511).saturating_add(sectors.saturating_add(1).saturating_mul(512));
            // The last sector need not be there as a whole.
            let end = end.min(self.len.max(offset.saturating_add(1)));
            return self.count("a compressed cluster", offset, end.saturating_sub(offset));
        }
        let offset = entry & OFFSET;
        if entry & L2_RESERVED != 0 {
            return Err(Defect::Entry { table: "an L2 table", entry });
        }
        self.check_offset("an L2 table", entry, offset)?;
        if offset == 0 {
            Ok(())
        } else {
            self.count("a data cluster", offset, self.header.cluster_size())
        }
    }

    fn check_offset(&self, table: &'static str, entry: u64, offset: u64) -> Result<(), Defect> {
        if offset.is_multiple_of(self.header.cluster_size()) {
            Ok(())
        } else {
            Err(Defect::Entry { table, entry })
        }
    }

    /// Counts the clusters of a range as used once more.
    fn count(&mut self, what: &'static str, offset: u64, bytes: u64) -> Result<(), Defect> {
        if bytes == 0 {
            return Ok(());
        }
        let bits = self.header.cluster_bits;
        let first = offset.wrapping_shr(bits);
        let last = offset.saturating_add(bytes).saturating_sub(1).wrapping_shr(bits);
        let range = self.counts.get_mut(first as usize..=last as usize);
        for count in range.ok_or(Defect::Truncated { what })? {
            *count = count.checked_add(1).ok_or(Defect::Beyond)?;
        }
        Ok(())
    }

    /// Tables have their clusters for themselves: a guest could else write to them.
    fn alone(&self, offset: u64, bytes: u64) -> Result<(), Defect> {
        let bits = self.header.cluster_bits;
        let last = offset.saturating_add(bytes).saturating_sub(1).wrapping_shr(bits);
        for cluster in offset.wrapping_shr(bits)..=last {
            if self.counts.get(cluster as usize) != Some(&1) {
                return Err(Defect::Refcounts { offset: cluster.wrapping_shl(bits) });
            }
        }
        Ok(())
    }

    /// Behind the last cluster in use.
    fn end(&self) -> Option<u64> {
        let last = self.counts.iter().rposition(|count| *count > 0)?;
        (last as u64).checked_add(1)?.checked_mul(self.header.cluster_size())
    }

    fn per_block(&self) -> usize {
        // As many counts of so many bits as a cluster holds.
        1usize.wrapping_shl(
            self.header.cluster_bits.saturating_add(3).saturating_sub(self.header.refcount_order),
        )
    }

    fn load_block(&self, offset: u64) -> Result<Vec<u8>, Defect> {
        let mut bytes = vec![0; self.header.cluster_size() as usize];
        self.file.read_or_zero(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn load_l2(&self, offset: u64) -> Result<Vec<u64>, Defect> {
        Ok(table(self.file, offset, (self.header.cluster_size() / 8) as usize)?)
    }

    /// Adds the refcount blocks that are missing, behind the end of the file.
    fn cover(&mut self) -> Result<bool, Defect> {
        let per_block = self.per_block();
        let mut added = false;
        // Each new one is a cluster in use itself; what it lies in may be looked at again.
        let mut index = 0;
        while index < self.counts.len().div_ceil(per_block) {
            let start = index.saturating_mul(per_block);
            let used =
                self.counts.get(start..).unwrap_or_default().iter().take(per_block).any(|&n| n > 0);
            if used && self.blocks.get(index).copied().unwrap_or(0) == 0 {
                let slot = self.blocks.get_mut(index).ok_or(Defect::Beyond)?;
                *slot = (self.counts.len() as u64).wrapping_shl(self.header.cluster_bits);
                self.counts.push(1);
                added = true;
            }
            index = index.saturating_add(1);
        }
        Ok(added)
    }

    /// The tables' flag of who is the only user of a cluster follows from the counts.
    fn restore_copied(&self) -> Result<(), Defect> {
        let flag = |entry: u64| {
            let offset = entry & OFFSET;
            let cluster = offset.wrapping_shr(self.header.cluster_bits) as usize;
            match self.counts.get(cluster) {
                _ if entry & COMPRESSED != 0 || offset == 0 => entry,
                Some(1) => entry | COPIED,
                _ => entry & !COPIED,
            }
        };
        let fix = |offset, before: Vec<u64>| {
            let after: Vec<u64> = before.iter().map(|entry| flag(*entry)).collect();
            if after == before { Ok(()) } else { store(self.file, offset, &after) }
        };
        for offset in &self.l2_tables {
            fix(*offset, self.load_l2(*offset)?)?;
        }
        let l1 = table(self.file, self.header.l1_offset, self.header.l1_entries)?;
        Ok(fix(self.header.l1_offset, l1)?)
    }
}

/// The count of that index in a block, whose entries have 2^`order` bits.
fn stored_count(block: &[u8], index: usize, order: u32) -> u64 {
    let byte = |at: usize| u64::from(block.get(at).copied().unwrap_or(0));
    if order < 3 {
        let bit = index.wrapping_shl(order);
        let mask = 1u64.wrapping_shl(1u32.wrapping_shl(order)).wrapping_sub(1);
        return byte(bit >> 3).wrapping_shr(bit as u32 & 7) & mask;
    }
    let width = 1usize.wrapping_shl(order.saturating_sub(3));
    let start = index.saturating_mul(width);
    (start..start.saturating_add(width)).fold(0, |count, at| count.wrapping_shl(8) | byte(at))
}

/// A refcount block of these counts, and of zeros behind them.
fn encode(counts: &[u16], header: &Header) -> Result<Vec<u8>, Defect> {
    let order = header.refcount_order;
    let mut block = vec![0u8; header.cluster_size() as usize];
    for (index, count) in counts.iter().enumerate() {
        let count = u64::from(*count);
        let bits = 1u32.wrapping_shl(order);
        if bits < 16 && count.wrapping_shr(bits) != 0 {
            return Err(Defect::Beyond);
        }
        if order < 3 {
            let bit = index.wrapping_shl(order);
            if let Some(byte) = block.get_mut(bit >> 3) {
                *byte |= count.wrapping_shl(bit as u32 & 7) as u8;
            }
        } else {
            let width = 1usize.wrapping_shl(order.saturating_sub(3));
            let bytes = count.to_be_bytes();
            let bytes = bytes.get(8usize.saturating_sub(width)..).unwrap_or_default();
            let start = index.saturating_mul(width);
            if let Some(place) = block.get_mut(start..start.saturating_add(width)) {
                place.copy_from_slice(bytes);
            }
        }
    }
    Ok(block)
}
