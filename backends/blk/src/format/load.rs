//! Big-endian numbers of qcow2's metadata, out of bytes and files that nobody has checked.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

pub(super) fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_be_bytes(*bytes))
}

/// The length of a file, or of a block device, whose metadata do not say it.
pub(super) fn len(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// A table of so many 64-bit entries. The caller has bounded their number.
pub(super) fn table(file: &File, offset: u64, entries: usize) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; entries.saturating_mul(8)];
    read_or_zero(file, &mut bytes, offset)?;
    let (entries, _none) = bytes.as_chunks();
    Ok(entries.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
}

/// Writes a table back.
pub(super) fn store(file: &File, offset: u64, entries: &[u64]) -> io::Result<()> {
    let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
    file.write_all_at(&bytes, offset)
}

/// Fills `bytes`; beyond the end of the file are zeros, as the last cluster may end early.
pub(super) fn read_or_zero(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut rest = bytes;
    let mut offset = offset;
    while !rest.is_empty() {
        match file.read_at(rest, offset) {
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
