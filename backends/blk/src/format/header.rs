//! The header of a qcow2 image, checked before anything else of the image is looked at: what
//! follows from it stays bounded. Layout: QEMU's docs/interop/qcow2.txt.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::io;

use super::load::{be32, be64};
use crate::file::ImageFile;

/// "QFI" and 0xfb.
pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Where the incompatible feature bits are, in version 3.
const INCOMPATIBLE: u64 = 72;
/// Bit 0 of them: the reference counts may be wrong.
const DIRTY: u64 = 1;
/// QEMU's limits on the tables: 32 MiB of L1 table, 8 MiB of refcount table.
const MAX_L1_ENTRIES: u64 = 32 << 17;
const MAX_REFTABLE: u64 = 8 << 20;

const BACKING_FORMAT: u32 = 0xe279_2aca;
const FEATURE_NAMES: u32 = 0x6803_f857;
const BITMAPS: u32 = 0x2385_2875;
const CRYPTO: u32 = 0x0537_be77;

/// Why an image in qcow2 format can't be served. Completes "the qcow2 image {path} …".
#[derive(Debug, thiserror::Error)]
pub enum Defect {
    /// It has another magic number.
    #[error("does not begin as a qcow2 image does; --format=raw serves it byte by byte")]
    Magic,
    /// The file ends within something that it refers to.
    #[error("is truncated: {what} lies beyond its end")]
    Truncated {
        /// What lies there.
        what: &'static str,
    },
    /// Only versions 2 and 3 are known.
    #[error("has version {0}, and versions 2 and 3 are supported")]
    Version(u32),
    /// A number that makes no sense.
    #[error("is damaged: {field} is {value}")]
    Field {
        /// What number.
        field: &'static str,
        /// What it says.
        value: u64,
    },
    /// A table of addresses holds what no address is.
    #[error("is damaged: an entry of {table} is {entry:#x}; `qemu-img check -r all` may repair it")]
    Entry {
        /// Which table.
        table: &'static str,
        /// What it says.
        entry: u64,
    },
    /// The guest's data is encrypted.
    #[error("is encrypted, which is not supported; `qemu-img convert` can decrypt it")]
    Encrypted,
    /// Something that changes the meaning of the whole.
    #[error(
        "uses the feature \"{0}\", which is not supported; `qemu-img convert -O qcow2` makes one without it"
    )]
    Feature(&'static str),
    /// A feature nobody told us of.
    #[error(
        "needs the unknown incompatible feature bit {0}, so it is of a newer kind than this program supports"
    )]
    UnknownFeature(u32),
    /// QEMU found it damaged.
    #[error("is marked corrupt; `qemu-img check -r all` may repair it")]
    Corrupt,
    /// It was not closed, and may not be repaired now.
    #[error(
        "was not closed properly; `qemu-img check -r all`, or serving it once without --read-only, repairs it"
    )]
    Dirty,
    /// It holds internal snapshots.
    #[error(
        "has {0} internal snapshots, with which it can only be served with --read-only; `qemu-img snapshot -d` deletes one"
    )]
    Snapshots(u32),
    /// It holds dirty bitmaps.
    #[error(
        "has persistent bitmaps, which writing would make wrong; `qemu-img bitmap --remove` removes one"
    )]
    Bitmaps,
    /// A cluster is used more often than it is counted.
    #[error(
        "has wrong reference counts, first for the cluster at {offset:#x}; `qemu-img check -r all` may repair it"
    )]
    Refcounts {
        /// Where the cluster is.
        offset: u64,
    },
    /// Damage that takes QEMU to repair.
    #[error(
        "was not closed properly and can't be repaired here; `qemu-img check -r all` may repair it"
    )]
    Beyond,
    /// The system failed to read or write it.
    #[error("cannot be read")]
    Io(#[from] io::Error),
}

/// The backing file that a header names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backing {
    pub(crate) name: Vec<u8>,
    pub(crate) format: Option<Vec<u8>>,
}

/// What matters of a header that has passed the checks.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    /// The disk's length in bytes.
    pub(crate) size: u64,
    pub(crate) l1_offset: u64,
    pub(crate) l1_entries: usize,
    pub(crate) reftable_offset: u64,
    pub(crate) reftable_entries: usize,
    pub(crate) refcount_order: u32,
    pub(crate) backing: Option<Backing>,
    pub(crate) dirty: bool,
    snapshots: u32,
    bitmaps: bool,
}

impl Header {
    /// Reads and checks it.
    pub(crate) fn load(file: &ImageFile) -> Result<Self, Defect> {
        let len = file.len()?;
        let mut start = [0; 104];
        file.read_or_zero(&mut start, 0)?;
        if !start.starts_with(&MAGIC) {
            return Err(Defect::Magic);
        }
        let short = || Defect::Truncated { what: "its header" };
        let word = |at| be32(&start, at).ok_or_else(short);
        let long = |at| be64(&start, at).ok_or_else(short);

        let version = word(4)?;
        let header_len = match version {
            2 => 72,
            3 => word(100)?,
            _ => return Err(Defect::Version(version)),
        };
        if len < u64::from(header_len) {
            return Err(short());
        }
        let cluster_bits = within("the cluster size's logarithm", word(20)?, 9, 21)?;
        let cluster = 1u64.wrapping_shl(cluster_bits);
        if word(32)? != 0 {
            return Err(Defect::Encrypted);
        }
        let (mut dirty, mut refcount_order) = (false, 4);
        if version == 3 {
            if header_len < 104 || !header_len.is_multiple_of(8) || u64::from(header_len) > cluster
            {
                return Err(Defect::Field {
                    field: "its header's length",
                    value: header_len.into(),
                });
            }
            refcount_order = within("the refcounts' width's logarithm", word(96)?, 0, 6)?;
            let incompatible = long(72)?;
            dirty = incompatible & DIRTY != 0;
            check_features(incompatible)?;
        }

        let size = long(24)?;
        // An L1 entry stands for a cluster full of L2 entries, eight bytes each.
        let per_entry = cluster.saturating_mul(cluster / 8);
        let needed = size.div_ceil(per_entry);
        if needed > MAX_L1_ENTRIES {
            return Err(Defect::Field { field: "the disk's size", value: size });
        }
        let l1_entries = u64::from(word(36)?);
        if l1_entries < needed || l1_entries > MAX_L1_ENTRIES {
            return Err(Defect::Field {
                field: "the L1 table's number of entries",
                value: l1_entries,
            });
        }
        let l1_offset = long(40)?;
        within_file("its L1 table", l1_offset, l1_entries.saturating_mul(8), cluster, len)?;
        let (reftable_offset, clusters) = (long(48)?, u64::from(word(56)?));
        let reftable_len = clusters.saturating_mul(cluster);
        if reftable_len == 0 || reftable_len > MAX_REFTABLE {
            let field = "the refcount table's number of clusters";
            return Err(Defect::Field { field, value: clusters });
        }
        within_file("its refcount table", reftable_offset, reftable_len, cluster, len)?;

        let mut first = vec![0; usize::try_from(cluster.min(len)).unwrap_or(0)];
        file.read_or_zero(&mut first, 0)?;
        let extensions = Extensions::parse(&first, header_len)?;
        Ok(Self {
            version,
            cluster_bits,
            size,
            l1_offset,
            l1_entries: l1_entries as usize,
            reftable_offset,
            reftable_entries: (reftable_len / 8) as usize,
            refcount_order,
            backing: backing_name(&first, long(8)?, word(16)?)?
                .map(|name| Backing { name, format: extensions.backing_format }),
            dirty,
            snapshots: word(60)?,
            bitmaps: extensions.bitmaps,
        })
    }

    /// What stands against writing to the image, though not against reading it.
    pub(crate) fn check_writable(&self) -> Result<(), Defect> {
        if self.snapshots > 0 {
            return Err(Defect::Snapshots(self.snapshots));
        }
        if self.bitmaps { Err(Defect::Bitmaps) } else { Ok(()) }
    }

    pub(crate) fn cluster_size(&self) -> u64 {
        1u64.wrapping_shl(self.cluster_bits)
    }
}

/// Says in the image on disk whether its reference counts can be trusted. Version 2 has no place
/// for it.
pub(super) fn mark_dirty(file: &ImageFile, header: &Header, dirty: bool) -> io::Result<()> {
    if header.version < 3 {
        return Ok(());
    }
    // The only bit that an image we serve can have.
    let bits = if dirty { DIRTY } else { 0 };
    file.write_all_at(&bits.to_be_bytes(), INCOMPATIBLE)?;
    file.file().sync_data()
}

fn check_features(incompatible: u64) -> Result<(), Defect> {
    if incompatible & 1 << 1 != 0 {
        return Err(Defect::Corrupt);
    }
    let known = [(2, "external data file"), (3, "compression type"), (4, "extended L2 entries")];
    if let Some((_, name)) =
        known.iter().find(|(bit, _)| incompatible & 1u64.wrapping_shl(*bit) != 0)
    {
        return Err(Defect::Feature(name));
    }
    match (incompatible & !DIRTY).trailing_zeros() {
        64 => Ok(()),
        bit => Err(Defect::UnknownFeature(bit)),
    }
}

fn within(field: &'static str, value: u32, least: u32, most: u32) -> Result<u32, Defect> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(Defect::Field { field, value: value.into() })
    }
}

fn within_file(
    what: &'static str,
    offset: u64,
    bytes: u64,
    cluster: u64,
    len: u64,
) -> Result<(), Defect> {
    if !offset.is_multiple_of(cluster) || (offset == 0 && bytes > 0) {
        return Err(Defect::Entry { table: "its header", entry: offset });
    }
    match offset.checked_add(bytes) {
        Some(end) if end <= len => Ok(()),
        _ => Err(Defect::Truncated { what }),
    }
}

fn backing_name(first: &[u8], offset: u64, len: u32) -> Result<Option<Vec<u8>>, Defect> {
    if offset == 0 {
        return Ok(None);
    }
    let field = "the length of the backing file's name";
    if !(1..=1023).contains(&len) {
        return Err(Defect::Field { field, value: len.into() });
    }
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let name = first.get(start..).and_then(|rest| rest.get(..len as usize));
    name.map(|name| Some(name.to_vec()))
        .ok_or(Defect::Truncated { what: "its backing file's name" })
}

/// What of the header's extensions is of interest.
#[derive(Default)]
struct Extensions {
    backing_format: Option<Vec<u8>>,
    bitmaps: bool,
}

impl Extensions {
    fn parse(first: &[u8], header_len: u32) -> Result<Self, Defect> {
        let mut found = Self::default();
        let mut at = header_len as usize;
        let beyond = || Defect::Truncated { what: "an extension of its header" };
        loop {
            // Those of version 2 were added later, and need not even end.
            let (Some(kind), Some(len)) = (be32(first, at), be32(first, at.saturating_add(4)))
            else {
                return if header_len == 72 { Ok(found) } else { Err(beyond()) };
            };
            if kind == 0 {
                return Ok(found);
            }
            let len = len as usize;
            let data = first.get(at.saturating_add(8)..).and_then(|rest| rest.get(..len));
            let data = data.ok_or_else(beyond)?;
            match kind {
                BACKING_FORMAT => found.backing_format = Some(data.to_vec()),
                BITMAPS => found.bitmaps = true,
                CRYPTO => return Err(Defect::Encrypted),
                // Entries of 48 bytes each, which readers rely on.
                FEATURE_NAMES if !len.is_multiple_of(48) => {
                    let field = "the length of its table of feature names";
                    return Err(Defect::Field { field, value: len as u64 });
                }
                _ => {}
            }
            at = at.saturating_add(8).saturating_add(len.next_multiple_of(8));
        }
    }
}

#[cfg(test)]
#[path = "header_test.rs"]
mod tests;
