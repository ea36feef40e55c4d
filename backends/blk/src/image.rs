//! A disk image: opened, checked and claimed. How its bytes are stored is its format's; it knows no
//! virtio.

use std::fs::{File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cache::Cache;
use crate::file::ImageFile;
use crate::format::chain::{self, ChainError, Layer};
use crate::format::header::Defect;
use crate::format::qcow2::{Overlay, Qcow2};
use crate::format::{Format, looks_like_qcow2};
use crate::geometry::{Geometry, GeometryError, SECTOR};
use crate::lock::{self, LockError};
use crate::mark::{Mark, Marked};
use crate::options::Options;
use crate::raw::Raw;
use crate::storage::Storage;

/// How long locks are waited for that no process is known to hold, and between two attempts.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_micros(200);

/// The file can't serve as a disk image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is not there, or can't be looked at.
    #[error("cannot open the disk image {path}")]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its file, or one behind it, can't be used past the page cache.
    #[error("--cache=none does not work with the disk image {path}; --cache=writeback does")]
    NotDirect {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its sizes can't be as they were asked for.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// It was to be served by io_uring and nothing else.
    #[error("cannot make an io_uring; --aio=threads goes without")]
    NoUring {
        /// Why not.
        source: io::Error,
    },
    /// It may be read but not written.
    #[error("cannot write to the disk image {path}; --read-only would only read it")]
    NotWritable {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is neither a file nor a block device.
    #[error("{path} is {kind}, not a disk image")]
    NotADisk {
        /// Its path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// There is nothing in it.
    #[error("the disk image {path} is empty; `truncate -s SIZE` gives it a size")]
    Empty {
        /// Its path.
        path: PathBuf,
    },
    /// It ends within a sector.
    #[error("the disk image {path} has {len} bytes, which is not a multiple of {block}")]
    Misaligned {
        /// Its path.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// Its blocks' size.
        block: u64,
    },
    /// It may be qcow2, and nobody said so.
    #[error(
        "{path} begins as a qcow2 image does; --format=qcow2 serves the disk in it, --format=raw the bytes of the file"
    )]
    Guess {
        /// Its path.
        path: PathBuf,
    },
    /// It is qcow2, but not as it should be.
    #[error("the qcow2 image {path} {defect}{}", because(defect))]
    Qcow2 {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        defect: Defect,
    },
    /// What is behind it is not as it should be.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// There is no place for what is written.
    #[error("cannot make a temporary file in {dir}; TMPDIR names another folder")]
    Scratch {
        /// Where.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else uses it.
    #[error(transparent)]
    Lock(#[from] LockError),
}

fn because(defect: &Defect) -> String {
    std::error::Error::source(defect).map(|cause| format!(": {cause}")).unwrap_or_default()
}

/// A disk that does not become as long as it should.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// It would lose what is at its end.
    #[error("the disk {path} has {len} bytes; making it shorter is not supported")]
    Shorter {
        /// Its image.
        path: PathBuf,
        /// Its length now.
        len: u64,
    },
    /// A disk has whole sectors.
    #[error("{len} bytes are not a multiple of {block}")]
    Misaligned {
        /// What was asked for.
        len: u64,
        /// Its blocks' size.
        block: u32,
    },
    /// It is not to be written to.
    #[error("the disk {path} is read-only")]
    ReadOnly {
        /// Its image.
        path: PathBuf,
    },
    /// The system failed to.
    #[error("cannot resize the disk {path}")]
    Io {
        /// Its image.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// An open disk image, locked against other users for as long as there is a [`Claim`] on it.
#[derive(Debug)]
pub(crate) struct Image {
    storage: Box<dyn Storage>,
    /// All its files, the one to be written to first.
    layers: Arc<Vec<Layer>>,
    path: PathBuf,
    len: AtomicU64,
    geometry: Geometry,
    read_only: bool,
    /// Whether none of the files is written to.
    shared: bool,
    /// How many claims there are.
    claims: Mutex<u32>,
    marked: Arc<Marked>,
}

/// A claim on an image: no other user gets the lock on it while there is one.
#[derive(Debug)]
pub(crate) struct Claim(Arc<Image>);

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.0.claims.lock().unwrap_or_else(PoisonError::into_inner);
        *claims = claims.saturating_sub(1);
        if *claims == 0 {
            self.0.storage.end();
            self.0.unlock();
        }
    }
}

impl Image {
    pub(crate) fn open(path: &Path, opening: &Options) -> Result<Self, ImageError> {
        let failed = |source| ImageError::Open { path: path.into(), source };
        let shared = opening.read_only || opening.snapshot;
        let file = ImageFile::new(open_file(path, shared)?, opening.cache == Cache::None)
            .map_err(|source| ImageError::NotDirect { path: path.into(), source })?;
        let seems_qcow2 = looks_like_qcow2(&file).map_err(failed)?;
        let qcow2 = match opening.format {
            Some(Format::Raw) => false,
            Some(Format::Qcow2) => true,
            Some(Format::Auto) => seems_qcow2,
            // The guest of a raw disk can have written it.
            None if seems_qcow2 => return Err(ImageError::Guess { path: path.into() }),
            None => false,
        };
        let raw = Raw::new(file.file().try_clone().map_err(failed)?, file.direct());
        // Clusters are read and written around what a request leaves of the host's blocks.
        let direct = file.direct().filter(|_| !qcow2 && !opening.snapshot);
        let needed = direct.map_or(SECTOR as u32, |direct| direct.offset);
        let geometry = Geometry::new(opening, needed)?;
        let block = u64::from(geometry.logical);
        let layers = Arc::new(if qcow2 {
            chain::open(file, path, &opening.backing_dir)?
        } else {
            vec![Layer { file, path: path.into(), header: None }]
        });
        let storage: Box<dyn Storage> = match qcow2 {
            true => Box::new(Qcow2::new(Arc::clone(&layers), shared)),
            false => Box::new(raw),
        };
        let len = storage.len().map_err(failed)?;
        if len == 0 {
            return Err(ImageError::Empty { path: path.into() });
        }
        if !len.is_multiple_of(block) {
            return Err(ImageError::Misaligned { path: path.into(), len, block });
        }
        let storage = if opening.snapshot {
            // Nobody flushes it, so that it need not go anywhere but to the page cache.
            let scratch = ImageFile::new(scratch()?, false).map_err(failed)?;
            Box::new(Overlay::create(scratch, &layers, len).map_err(failed)?)
        } else {
            storage
        };
        Ok(Self {
            storage,
            layers,
            path: path.into(),
            len: AtomicU64::new(len),
            geometry,
            read_only: opening.read_only,
            shared,
            claims: Mutex::default(),
            marked: Arc::default(),
        })
    }

    /// Claims the image, which fails while somebody else has it. Claims of this process share it.
    pub(crate) fn claim(self: &Arc<Self>) -> Result<Claim, ImageError> {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if *claims == 0 {
            let begun =
                self.lock_patiently().map_err(ImageError::from).and_then(|()| self.storage.begin());
            if let Err(error) = begun {
                self.unlock();
                return Err(error);
            }
        }
        *claims = claims.saturating_add(1);
        Ok(Claim(Arc::clone(self)))
    }

    /// Locks the files. What a process had in flight when it was killed keeps its locks until that
    /// has come to an end, and may still change the image or its guest's memory until then.
    fn lock_patiently(&self) -> Result<(), LockError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lock() {
                Err(LockError::InUse { holder: None, .. }) if Instant::now() < deadline => {
                    thread::sleep(PAUSE);
                }
                locked => return locked,
            }
        }
    }

    fn lock(&self) -> Result<(), LockError> {
        self.layers.iter().enumerate().try_for_each(|(index, layer)| {
            lock::lock(layer.file.file(), &layer.path, self.shared || index > 0)
        })
    }

    fn unlock(&self) {
        self.layers.iter().for_each(|layer| lock::unlock(layer.file.file()));
    }

    /// Waits for what a process before this one may still have in flight into the guest's memory,
    /// and marks the image for the next one; `record` is what the two have in common. Where others
    /// are kept from an image its locks do as much, and what the page cache hands out is handed out
    /// when a process has ended.
    pub(crate) fn mark(&self, record: u64) -> Result<Option<Mark>, LockError> {
        let direct = self.storage.raw().is_some_and(Raw::is_direct);
        let layer = self.layers.first().filter(|_| self.shared && direct);
        let deadline = Instant::now() + PATIENCE;
        layer.map(|layer| Mark::set(&self.marked, layer, record, deadline)).transpose()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes, a multiple of its blocks'.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        self.storage.as_ref()
    }

    /// Looks at its length again, which somebody may have changed. Returns whether it is longer.
    /// What is shorter stays as it was for the guest, which can't do without what it knows of.
    pub(crate) fn look_again(&self) -> io::Result<bool> {
        let block = u64::from(self.geometry.logical);
        let (before, now) = (self.len(), self.storage.len()? / block * block);
        if now < before {
            tracing::warn!(
                "{} has shrunk to {now} bytes; the guest goes on with {before}, and what is \
                 beyond the end fails",
                self.path.display()
            );
        }
        Ok(self.len.fetch_max(now, Ordering::AcqRel) < now)
    }

    /// Makes it longer.
    pub(crate) fn grow(&self, len: u64) -> Result<(), ResizeError> {
        let path = || self.path.clone();
        if self.read_only {
            return Err(ResizeError::ReadOnly { path: path() });
        }
        let block = self.geometry.logical;
        if !len.is_multiple_of(block.into()) {
            return Err(ResizeError::Misaligned { len, block });
        }
        if len < self.len() {
            return Err(ResizeError::Shorter { path: path(), len: self.len() });
        }
        let grown = self.storage.grow(len).and_then(|()| self.look_again());
        grown.map(drop).map_err(|source| ResizeError::Io { path: path(), source })
    }
}

fn open_file(path: &Path, read_only: bool) -> Result<File, ImageError> {
    let failed = |source| ImageError::Open { path: path.into(), source };
    // Before it is opened, because opening has effects of its own on some kinds of file.
    check_kind(path, std::fs::metadata(path).map_err(failed)?.file_type())?;
    let options =
        OpenOptions::new().read(true).write(!read_only).custom_flags(libc::O_CLOEXEC).open(path);
    options.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            if !read_only && File::open(path).is_ok() =>
        {
            ImageError::NotWritable { path: path.into(), source }
        }
        _ => failed(source),
    })
}

/// A file without a name. It may become large, for which /tmp is often too small.
fn scratch() -> Result<File, ImageError> {
    let dir: PathBuf = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into()).into();
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC);
    options.open(&dir).map_err(|source| ImageError::Scratch { dir, source })
}

pub(crate) fn check_kind(path: &Path, kind: FileType) -> Result<(), ImageError> {
    let kind = match kind {
        kind if kind.is_file() || kind.is_block_device() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_char_device() => "a character device",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "neither a file nor a block device",
    };
    Err(ImageError::NotADisk { path: path.into(), kind })
}

#[cfg(test)]
#[path = "image_test.rs"]
mod tests;
