//! A disk that is stored in a chain of qcow2 files, read and written through `imago`.
//!
//! While the image is in use for writing it is marked dirty, as QEMU marks it for lazy reference
//! counts: `imago` does not order its writes to the tables so that a process may die between any
//! two. Who finds the mark counts the references anew; QEMU does so by itself. What a request has
//! written is in the files when it completes, tables included, so that the process may be killed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use atoll_backend::{Reader, Writer};
use imago::file::File as ImagoFile;
use imago::format::PreallocateMode;
use imago::qcow2::Qcow2 as Driver;
use imago::raw::Raw as RawDriver;
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder,
    StorageOpenOptions,
};

use super::chain::Layer;
use super::header::{Defect, Header, mark_dirty};
use super::refcounts;
use crate::image::ImageError;
use crate::ranges::Range;
use crate::storage::Storage;

/// How much of a request is copied at once: guest memory is no place that `imago` may look into.
const CHUNK: usize = 1 << 20;

type Access = FormatAccess<ImagoFile>;

/// A chain of files, of which the first is written to unless it is read-only.
#[derive(Debug)]
pub(crate) struct Qcow2 {
    layers: Arc<Vec<Layer>>,
    read_only: bool,
    access: RwLock<Option<Access>>,
}

impl Qcow2 {
    pub(crate) fn new(layers: Arc<Vec<Layer>>, read_only: bool) -> Self {
        Self { layers, read_only, access: RwLock::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&Access) -> io::Result<T>) -> io::Result<T> {
        let access = self.access.read().unwrap_or_else(PoisonError::into_inner);
        act(access.as_ref().ok_or(io::ErrorKind::NotConnected)?)
    }

    /// As `with`, while nobody else uses the image: what rounds to clusters meets no other request.
    fn with_alone(&self, act: impl FnOnce(&mut Access) -> io::Result<()>) -> io::Result<()> {
        let mut access = self.access.write().unwrap_or_else(PoisonError::into_inner);
        let access = access.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        act(access)?;
        // Out of this process.
        access.flush()
    }

    fn first(&self) -> Option<(&Layer, &Header)> {
        self.layers.first().and_then(|layer| Some((layer, layer.header.as_ref()?)))
    }

    fn open(&self) -> Result<Access, Defect> {
        if let Some((layer, _)) = self.first() {
            // Whoever had it before may have changed it.
            let header = Header::load(&layer.file)?;
            match (self.read_only, header.dirty) {
                (true, true) => return Err(Defect::Dirty),
                (true, false) => {}
                (false, dirty) => settle(&layer.file, &layer.path, &header, dirty)?,
            }
        }
        let access = stack(&self.layers, self.read_only)?;
        if let Some((layer, header)) = self.first().filter(|_| !self.read_only) {
            mark_dirty(&layer.file, header, true)?;
        }
        Ok(access)
    }
}

/// Makes the reference counts right, or sees that they are.
fn settle(file: &File, path: &Path, header: &Header, dirty: bool) -> Result<(), Defect> {
    header.check_writable()?;
    if !dirty {
        match refcounts::check(file, header) {
            // Version 2 has no mark to find.
            Err(Defect::Refcounts { .. }) if header.version == 2 => {}
            checked => return checked,
        }
    }
    tracing::warn!("{} was not closed properly; counting its references", path.display());
    refcounts::repair(file, header)?;
    Ok(mark_dirty(file, header, false)?)
}

/// The drivers of all files, each over the one behind it.
fn stack(layers: &[Layer], read_only: bool) -> io::Result<Access> {
    let mut behind: Option<Access> = None;
    for (index, layer) in layers.iter().enumerate().rev() {
        let write = index == 0 && !read_only;
        let options = StorageOpenOptions::new().write(write);
        let file = ImagoFile::from_open_file(layer.file.try_clone()?, options)?;
        let access = if layer.header.is_some() {
            let driver = Driver::<ImagoFile>::builder(file).backing(behind.take());
            let driver = driver.data_file(None).write(write);
            FormatAccess::new(driver.open(DenyImplicitOpenGate::default())?)
        } else {
            FormatAccess::new(RawDriver::open_image(file, write)?)
        };
        behind = Some(access);
    }
    behind.ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl Storage for Qcow2 {
    fn begin(&self) -> Result<(), ImageError> {
        let path = self.first().map(|(layer, _)| layer.path.clone()).unwrap_or_default();
        let access = self.open().map_err(|defect| ImageError::Qcow2 { path, defect })?;
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = Some(access);
        Ok(())
    }

    fn end(&self) {
        let mut slot = self.access.write().unwrap_or_else(PoisonError::into_inner);
        let (Some(access), Some((layer, header))) = (slot.take(), self.first()) else {
            return;
        };
        if self.read_only {
            return;
        }
        let closed = access.flush().and_then(|()| access.sync());
        drop(access);
        // Whoever opens it next sees the mark otherwise.
        if let Err(error) = closed.and_then(|()| mark_dirty(&layer.file, header, false)) {
            tracing::error!("cannot close the disk image {}: {error}", layer.path.display());
        }
    }

    fn len(&self) -> io::Result<u64> {
        let header = self.first().map(|(layer, _)| Header::load(&layer.file));
        header.ok_or(io::ErrorKind::NotFound)?.map(|header| header.size).map_err(io::Error::other)
    }

    fn read_at(&self, offset: u64, data: &mut Writer<'_>) -> io::Result<()> {
        self.with(|access| read(access, offset, data))
    }

    fn write_at(&self, offset: u64, data: &mut Reader<'_>) -> io::Result<()> {
        self.with(|access| {
            write(access, offset, data)?;
            // Out of this process.
            access.flush()
        })
    }

    fn discard(&self, range: Range) -> io::Result<()> {
        self.with_alone(|access| discard(access, range))
    }

    fn write_zeroes(&self, range: Range) -> io::Result<()> {
        self.with_alone(|access| write_zeroes(access, range))
    }

    fn flush(&self) -> io::Result<()> {
        self.with(|access| {
            access.flush()?;
            access.sync()
        })
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        self.with(|access| {
            access.resize_grow(len, PreallocateMode::None)?;
            access.flush()?;
            access.sync()
        })
    }
}

/// A disk whose writes go to a nameless temporary file, which ends with the process.
#[derive(Debug)]
pub(crate) struct Overlay(RwLock<Access>);

impl Overlay {
    /// Over `layers`, of a disk of `len` bytes, in the temporary file `scratch`.
    pub(crate) fn create(scratch: File, layers: &[Layer], len: u64) -> io::Result<Self> {
        let behind = stack(layers, true)?;
        let scratch = ImagoFile::from_open_file(scratch, StorageOpenOptions::new().write(true))?;
        let create = Driver::<ImagoFile>::create_builder(scratch).size(len);
        let driver = create.create_open(DenyImplicitOpenGate::default(), |file| {
            Ok(Driver::builder(file).backing(Some(behind)))
        })?;
        Ok(Self(RwLock::new(FormatAccess::new(driver))))
    }

    fn shared(&self) -> RwLockReadGuard<'_, Access> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Access> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for Overlay {
    fn begin(&self) -> Result<(), ImageError> {
        Ok(())
    }

    fn end(&self) {}

    fn len(&self) -> io::Result<u64> {
        Ok(self.shared().size())
    }

    fn read_at(&self, offset: u64, data: &mut Writer<'_>) -> io::Result<()> {
        read(&self.shared(), offset, data)
    }

    fn write_at(&self, offset: u64, data: &mut Reader<'_>) -> io::Result<()> {
        write(&self.shared(), offset, data)
    }

    fn discard(&self, range: Range) -> io::Result<()> {
        discard(&mut self.alone(), range)
    }

    fn write_zeroes(&self, range: Range) -> io::Result<()> {
        write_zeroes(&mut self.alone(), range)
    }

    fn flush(&self) -> io::Result<()> {
        // Nobody reads it when we are gone.
        Ok(())
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        self.shared().resize_grow(len, PreallocateMode::None)
    }
}

fn read(access: &Access, mut offset: u64, data: &mut Writer<'_>) -> io::Result<()> {
    let mut bytes = vec![0; data.len().min(CHUNK)];
    while !data.is_empty() {
        let count = data.len().min(bytes.len());
        let here = bytes.get_mut(..count).unwrap_or_default();
        access.read(&mut *here, offset)?;
        data.copy_from(here);
        offset = offset.saturating_add(count as u64);
    }
    Ok(())
}

fn write(access: &Access, mut offset: u64, data: &mut Reader<'_>) -> io::Result<()> {
    let mut bytes = vec![0; data.len().min(CHUNK)];
    while !data.is_empty() {
        let count = data.copy_to(&mut bytes);
        access.write(bytes.get(..count).unwrap_or_default(), offset)?;
        offset = offset.saturating_add(count as u64);
    }
    Ok(())
}

fn discard(access: &mut Access, range: Range) -> io::Result<()> {
    match access.discard_to_any(range.offset, range.len) {
        // Version 2 has no clusters of zeroes, and what is behind must not show again.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        done => done,
    }
}

fn write_zeroes(access: &mut Access, range: Range) -> io::Result<()> {
    let done = if range.unmap {
        access.discard_to_zero(range.offset, range.len)
    } else {
        access.write_zeroes(range.offset, range.len)
    };
    match done {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => write_zero_bytes(access, range),
        done => done,
    }
}

fn write_zero_bytes(access: &Access, range: Range) -> io::Result<()> {
    static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
    let (mut offset, mut left) = (range.offset, range.len);
    while left > 0 {
        let here = left.min(ZEROES.len() as u64);
        access.write(ZEROES.get(..here as usize).unwrap_or_default(), offset)?;
        offset = offset.saturating_add(here);
        left = left.saturating_sub(here);
    }
    Ok(())
}
