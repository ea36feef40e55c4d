//! Feeds bytes that somebody calls a qcow2 image to what checks and serves one. Part of the fuzz
//! targets only.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::clusters::Clusters;
use super::{chain, qcow2::Qcow2};
use crate::file::ImageFile;
use crate::image::ImageError;
use crate::ranges::Range;
use crate::storage::Storage as _;

/// How much of the disk is looked at: the first and the last bytes.
const PART: u64 = 48 << 10;

/// Opens the file at `path` as an image and uses it, like a guest, then opens it again.
///
/// # Panics
/// When an image that was served and closed without an error is refused the next time.
pub fn image(path: &Path) {
    let used = open(path).and_then(|image| {
        let used = image.with_alone(serve).is_ok();
        image.end();
        Ok(used)
    });
    if let Ok(true) = used {
        let again = open(path);
        assert!(again.is_ok(), "what was left is refused: {again:?}");
        again.iter().for_each(Qcow2::end);
    }
}

fn open(path: &Path) -> Result<Qcow2, ImageError> {
    let failed = |source| ImageError::Open { path: path.into(), source };
    let file = File::options().read(true).write(true).open(path);
    let file = file.and_then(|file| ImageFile::new(file, false)).map_err(failed)?;
    let image = Qcow2::new(Arc::new(chain::open(file, path, &[])?), false);
    image.begin()?;
    Ok(image)
}

fn serve(clusters: &mut Clusters) -> io::Result<()> {
    let len = clusters.len();
    for start in [0, len.saturating_sub(PART)] {
        let count = PART.min(len.saturating_sub(start));
        let mut before = vec![0; count as usize];
        clusters.get(start, &mut before)?;
        let byte = [0x5a; 512];
        for offset in (start..start.saturating_add(count)).step_by(1536) {
            let here = byte.len().min(len.saturating_sub(offset) as usize);
            clusters.put(offset, byte.get(..here).unwrap_or_default())?;
        }
        let quarter = count / 4;
        clusters.write_zeroes(Range { offset: start, len: quarter, unmap: true })?;
        let offset = start.saturating_add(quarter);
        clusters.write_zeroes(Range { offset, len: quarter, unmap: false })?;
        let offset = offset.saturating_add(quarter);
        clusters.discard(Range { offset, len: quarter, unmap: false })?;
        clusters.flush()?;
        clusters.get(start, &mut before)?;
    }
    Ok(())
}
