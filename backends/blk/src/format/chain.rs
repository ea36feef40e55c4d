//! The files that an image consists of: its own, and the backing files behind it, each named by the
//! one before. A name is followed only into permitted folders.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::header::{Backing, Defect, Header};
use crate::file::ImageFile;
use crate::image::{ImageError, check_kind};

/// Longer chains are slow for everybody, and a sign of a mistake.
const MAX_FILES: usize = 64;

/// One file of a chain.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) file: ImageFile,
    pub(crate) path: PathBuf,
    /// Of a qcow2 file. The last file of a chain may be raw.
    pub(crate) header: Option<Header>,
}

/// There is something wrong with a backing file.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// It can't be opened.
    #[error("cannot open {path}, the backing file of {of}")]
    Open {
        /// The backing file.
        path: PathBuf,
        /// The image that names it.
        of: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It lies where it may not.
    #[error("{path}, the backing file of {of}, is outside the image's folder; --backing-dir={} permits it", parent(path).display())]
    Outside {
        /// The backing file.
        path: PathBuf,
        /// The image that names it.
        of: PathBuf,
    },
    /// The image does not say how to read it.
    #[error(
        "{of} does not say the format of its backing file; `qemu-img rebase -u -F FORMAT -b {path} {of}` adds it"
    )]
    NoFormat {
        /// The backing file.
        path: PathBuf,
        /// The image that names it.
        of: PathBuf,
    },
    /// It has a format that we can't read.
    #[error("the backing file of {of} has the format {format:?}, and raw and qcow2 are supported")]
    Format {
        /// The image that names it.
        of: PathBuf,
        /// What it says.
        format: String,
    },
    /// It is not named by a path.
    #[error("the backing file of {of} is {name:?}, and only files are supported")]
    NotAFile {
        /// The image that names it.
        of: PathBuf,
        /// What it says.
        name: String,
    },
    /// It is behind itself.
    #[error("the backing file of {of} is {path}, which has {of} behind it")]
    Loop {
        /// The backing file.
        path: PathBuf,
        /// The image that names it.
        of: PathBuf,
    },
    /// There are too many.
    #[error("more than {MAX_FILES} files are behind {path}; `qemu-img convert` makes one of them")]
    TooLong {
        /// The first of the chain.
        path: PathBuf,
    },
}

/// Opens what is behind the qcow2 image `file`, which comes first in the result; past the page cache
/// where that goes there.
pub(crate) fn open(
    file: ImageFile,
    path: &Path,
    permitted: &[PathBuf],
) -> Result<Vec<Layer>, ImageError> {
    let defect = |path: &Path| {
        let path = path.to_owned();
        move |defect: Defect| ImageError::Qcow2 { path, defect }
    };
    let folder = fs::canonicalize(path).ok().as_deref().map(parent).map(Path::to_owned);
    let past_cache = file.direct().is_some();
    let header = Header::load(&file).map_err(defect(path))?;
    let mut layers = vec![Layer { file, path: path.into(), header: Some(header) }];
    while let Some((of, backing)) = next(&layers) {
        let (path, is_qcow2) = resolve(&of, &backing)?;
        let failed = |source| ChainError::Open { path: path.clone(), of: of.clone(), source };
        let real = fs::canonicalize(&path).map_err(failed)?;
        let mut folders = permitted.iter().filter_map(|folder| fs::canonicalize(folder).ok());
        if !folder.iter().any(|folder| real.starts_with(folder))
            && !folders.any(|folder| real.starts_with(folder))
        {
            return Err(ChainError::Outside { path: real, of }.into());
        }
        check_kind(&real, fs::metadata(&real).map_err(failed)?.file_type())?;
        let file = File::open(&real).map_err(failed)?;
        if layers.iter().any(|layer| same(layer.file.file(), &file)) {
            return Err(ChainError::Loop { path: real, of }.into());
        }
        let file = ImageFile::new(file, past_cache)
            .map_err(|source| ImageError::NotDirect { path: real.clone(), source })?;
        let header =
            if is_qcow2 { Some(Header::load(&file).map_err(defect(&real))?) } else { None };
        if header.as_ref().is_some_and(|header| header.dirty) {
            return Err(ImageError::Qcow2 { path: real, defect: Defect::Dirty });
        }
        layers.push(Layer { file, path: real, header });
        if layers.len() > MAX_FILES {
            return Err(ChainError::TooLong { path: layers.swap_remove(0).path }.into());
        }
    }
    Ok(layers)
}

/// What is behind the last of the files, and that file's path.
fn next(layers: &[Layer]) -> Option<(PathBuf, Backing)> {
    let last = layers.last()?;
    Some((last.path.clone(), last.header.as_ref()?.backing.clone()?))
}

/// The path of a backing file, and whether it is qcow2.
fn resolve(of: &Path, backing: &Backing) -> Result<(PathBuf, bool), ChainError> {
    let name = Path::new(OsStr::from_bytes(&backing.name));
    let text = name.to_string_lossy();
    // QEMU takes `json:{…}` and `protocol:…`, unless a slash comes before the colon.
    let is_file = text.split_once(':').is_none_or(|(before, _)| before.contains('/'));
    if !is_file || backing.name.contains(&0) {
        return Err(ChainError::NotAFile { of: of.into(), name: text.into() });
    }
    let path = parent(of).join(name);
    match backing.format.as_deref() {
        Some(b"raw") => Ok((path, false)),
        Some(b"qcow2") => Ok((path, true)),
        Some(other) => {
            let format = String::from_utf8_lossy(other).into();
            Err(ChainError::Format { of: of.into(), format })
        }
        None => Err(ChainError::NoFormat { path, of: of.into() }),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn same(one: &File, other: &File) -> bool {
    let id = |file: &File| file.metadata().ok().map(|of| (of.dev(), of.ino()));
    id(one) == id(other)
}
