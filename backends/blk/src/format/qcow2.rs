//! A disk that is stored in a chain of qcow2 files, read and written through `imago`.
//!
//! While the image is in use for writing it is marked dirty, as QEMU marks it for lazy reference
//! counts: of these `imago` makes no more than a cache. Who finds the mark counts the references
//! anew; QEMU does so by itself. What refers to what is always right, see `clusters`.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use atoll_backend::{Reader, Writer};
use imago::qcow2::Qcow2 as Driver;
use imago::raw::Raw as RawDriver;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder};

use super::chain::Layer;
use super::clusters::{Access, Clusters};
use super::header::{Defect, Header, mark_dirty};
use super::host::Host;
use super::refcounts;
use crate::file::ImageFile;
use crate::image::ImageError;
use crate::ranges::Range;
use crate::storage::Storage;

/// Of the clusters of an overlay.
const CLUSTER: u64 = 64 << 10;

/// A chain of files, of which the first is written to unless it is read-only.
#[derive(Debug)]
pub(crate) struct Qcow2 {
    layers: Arc<Vec<Layer>>,
    read_only: bool,
    open: RwLock<Option<Clusters>>,
}

impl Qcow2 {
    pub(crate) fn new(layers: Arc<Vec<Layer>>, read_only: bool) -> Self {
        Self { layers, read_only, open: RwLock::default() }
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&Clusters) -> io::Result<T>) -> io::Result<T> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        act(open.as_ref().ok_or(io::ErrorKind::NotConnected)?)
    }

    /// As `with`, while nobody else uses the image: what gives clusters up meets no other request.
    pub(super) fn with_alone(
        &self,
        act: impl FnOnce(&mut Clusters) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        act(open.as_mut().ok_or(io::ErrorKind::NotConnected)?)
    }

    fn first(&self) -> Option<(&Layer, &Header)> {
        self.layers.first().and_then(|layer| Some((layer, layer.header.as_ref()?)))
    }

    fn open(&self) -> Result<Clusters, Defect> {
        if let Some((layer, _)) = self.first() {
            // Whoever had it before may have changed it.
            let header = Header::load(&layer.file)?;
            match (self.read_only, header.dirty) {
                (true, true) => return Err(Defect::Dirty),
                (true, false) => {}
                (false, dirty) => settle(&layer.file, &layer.path, &header, dirty)?,
            }
        }
        let (layer, header) =
            self.first().ok_or(io::ErrorKind::NotFound).map_err(io::Error::from)?;
        let host = host(layer, !self.read_only)?;
        let behind = stack(self.layers.get(1..).unwrap_or_default())?;
        let len = behind.as_ref().map_or(0, Access::size);
        let access = driver(host.clone(), behind, !self.read_only)?;
        if !self.read_only {
            mark_dirty(&layer.file, header, true)?;
        }
        Ok(Clusters::new(access, host, header.cluster_size(), len))
    }
}

/// Makes the reference counts right, or sees that they are.
fn settle(file: &ImageFile, path: &Path, header: &Header, dirty: bool) -> Result<(), Defect> {
    header.check_writable()?;
    if !dirty {
        match refcounts::check(file, header, header.version > 2) {
            // Version 2 has no mark to find.
            Err(Defect::Refcounts { .. }) if header.version == 2 => {}
            checked => return checked,
        }
    }
    tracing::warn!("{} was not closed properly; counting its references", path.display());
    refcounts::repair(file, header)?;
    Ok(mark_dirty(file, header, false)?)
}

/// The drivers of these files, each over the one behind it; none is written to.
fn stack(layers: &[Layer]) -> io::Result<Option<Access>> {
    layers.iter().rev().try_fold(None, |behind, layer| {
        let host = host(layer, false)?;
        let access = match layer.header {
            Some(_) => driver(host, behind, false)?,
            None => FormatAccess::new(RawDriver::open_image(host, false)?),
        };
        Ok(Some(access))
    })
}

fn host(layer: &Layer, write: bool) -> io::Result<Host> {
    let file = layer.file.try_clone()?;
    if write { Host::ordered(file) } else { Host::unordered(file) }
}

fn driver(host: Host, behind: Option<Access>, write: bool) -> io::Result<Access> {
    let driver = Driver::<Host>::builder(host).backing(behind).data_file(None).write(write);
    Ok(FormatAccess::new(driver.open(DenyImplicitOpenGate::default())?))
}

impl Storage for Qcow2 {
    fn begin(&self) -> Result<(), ImageError> {
        let path = self.first().map(|(layer, _)| layer.path.clone()).unwrap_or_default();
        let clusters = self.open().map_err(|defect| ImageError::Qcow2 { path, defect })?;
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(clusters);
        Ok(())
    }

    fn end(&self) {
        let mut slot = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let (Some(clusters), Some((layer, header))) = (slot.take(), self.first()) else {
            return;
        };
        if self.read_only {
            return;
        }
        // Whoever opens it next sees the mark otherwise.
        if let Err(error) = clusters.close().and_then(|()| mark_dirty(&layer.file, header, false)) {
            tracing::error!("cannot close the disk image {}: {error}", layer.path.display());
        }
    }

    fn len(&self) -> io::Result<u64> {
        let header = self.first().map(|(layer, _)| Header::load(&layer.file));
        header.ok_or(io::ErrorKind::NotFound)?.map(|header| header.size).map_err(io::Error::other)
    }

    fn read_at(&self, offset: u64, data: &mut Writer<'_>) -> io::Result<()> {
        self.with(|clusters| clusters.read(offset, data))
    }

    fn write_at(&self, offset: u64, data: &mut Reader<'_>) -> io::Result<()> {
        self.with(|clusters| clusters.write(offset, data))
    }

    fn discard(&self, range: Range) -> io::Result<()> {
        self.with_alone(|clusters| clusters.discard(range))
    }

    fn write_zeroes(&self, range: Range) -> io::Result<()> {
        self.with_alone(|clusters| clusters.write_zeroes(range))
    }

    fn flush(&self) -> io::Result<()> {
        self.with(Clusters::flush)
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        self.with_alone(|clusters| clusters.grow(len))
    }
}

/// A disk whose writes go to a nameless temporary file, which ends with the process.
#[derive(Debug)]
pub(crate) struct Overlay(RwLock<Clusters>);

impl Overlay {
    /// Over `layers`, of a disk of `len` bytes, in the temporary file `scratch`.
    pub(crate) fn create(scratch: ImageFile, layers: &[Layer], len: u64) -> io::Result<Self> {
        let behind = stack(layers)?;
        let host = Host::unordered(scratch)?;
        let create = Driver::<Host>::create_builder(host.clone());
        let create = create.size(len).cluster_size(CLUSTER as usize);
        let driver = create.create_open(DenyImplicitOpenGate::default(), |file| {
            Ok(Driver::builder(file).backing(behind))
        })?;
        Ok(Self(RwLock::new(Clusters::new(FormatAccess::new(driver), host, CLUSTER, len))))
    }

    fn with<T>(&self, act: impl FnOnce(&Clusters) -> io::Result<T>) -> io::Result<T> {
        act(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn with_alone(&self, act: impl FnOnce(&mut Clusters) -> io::Result<()>) -> io::Result<()> {
        act(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Storage for Overlay {
    fn begin(&self) -> Result<(), ImageError> {
        Ok(())
    }

    fn end(&self) {}

    fn len(&self) -> io::Result<u64> {
        self.with(|clusters| Ok(clusters.len()))
    }

    fn read_at(&self, offset: u64, data: &mut Writer<'_>) -> io::Result<()> {
        self.with(|clusters| clusters.read(offset, data))
    }

    fn write_at(&self, offset: u64, data: &mut Reader<'_>) -> io::Result<()> {
        self.with(|clusters| clusters.write(offset, data))
    }

    fn discard(&self, range: Range) -> io::Result<()> {
        self.with_alone(|clusters| clusters.discard(range))
    }

    fn write_zeroes(&self, range: Range) -> io::Result<()> {
        self.with_alone(|clusters| clusters.write_zeroes(range))
    }

    fn flush(&self) -> io::Result<()> {
        // Nobody reads it when we are gone.
        Ok(())
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        self.with_alone(|clusters| clusters.grow(len))
    }
}

#[cfg(test)]
#[path = "power_test.rs"]
mod power;
