//! Big-endian numbers of qcow2's metadata, out of bytes and files that nobody has checked.

use std::io;

use crate::file::ImageFile;

pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

pub(super) fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_be_bytes(*bytes))
}

/// A table of so many 64-bit entries. The caller has bounded their number.
pub(super) fn table(file: &ImageFile, offset: u64, entries: usize) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; entries.saturating_mul(8)];
    file.read_or_zero(&mut bytes, offset)?;
    let (entries, _none) = bytes.as_chunks();
    Ok(entries.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
}

/// Writes a table back.
pub(super) fn store(file: &ImageFile, offset: u64, entries: &[u64]) -> io::Result<()> {
    let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
    file.write_all_at(&bytes, offset)
}
