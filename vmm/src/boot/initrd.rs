//! The initial RAM disk, as high in memory as the kernel can reach.

use super::BootError;
use super::image::Image;
use crate::memory::GuestRam;

const PAGE: u64 = 4096;

/// Copies it below `limit` and above the kernel, and says where it is and how long.
pub(super) fn load(
    image: &Image,
    ram: &GuestRam,
    kernel_end: u64,
    limit: u64,
) -> Result<(u64, u64), BootError> {
    let size = image.size();
    if size == 0 {
        return Err(BootError::InitrdEmpty { path: image.path().into() });
    }
    let start = limit.checked_sub(size).map(|start| start & !(PAGE.saturating_sub(1)));
    let start = start.filter(|&start| start >= kernel_end);
    let start = start.ok_or_else(|| BootError::InitrdTooLarge {
        path: image.path().into(),
        size,
        room: limit.saturating_sub(kernel_end),
    })?;
    image.copy_to(ram, start, 0, size)?;
    Ok((start, size))
}
