//! The clusters of an open chain of qcow2 files: what a request does to them, and in which order
//! that reaches the file. Opening and closing the chain is not its business.
//!
//! A request that completes has its tables in the file, so that the process may be killed. Where a
//! power cut could then show a cluster's old bytes, or none, in place of what the guest has flushed
//! before, the cluster is on stable storage before the table that refers to it.

use std::io;
use std::ops::Range as Span;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use atoll_backend::{Reader, Writer};
use imago::format::PreallocateMode;
use imago::{FormatAccess, ShallowMapping};

use super::host::Host;
use crate::file::Aligned;
use crate::ranges::Range;

pub(super) type Access = FormatAccess<Host>;

/// How much of a request is copied at once: guest memory is no place that `imago` may look into.
const CHUNK: usize = 1 << 20;
/// How many places are given back at once.
const PIECE: usize = 4096;

#[derive(Debug)]
pub(super) struct Clusters {
    access: Access,
    host: Host,
    /// The size of one.
    size: u64,
    /// The length of the disk behind it.
    behind: u64,
    /// Who holds it may change tables. Whether there are clusters that have to be on stable storage
    /// before the tables.
    order: Mutex<bool>,
    /// Whether there are changes to tables that are not in the file.
    unsaved: AtomicBool,
}

/// What a part of the disk consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// A place in the file, that is nobody else's.
    Own(Span<u64>),
    /// Nothing: it reads as zeroes.
    Zeroes,
    /// What is behind the file.
    Behind,
    /// Something compressed, or shared. Who writes there copies it, and frees its space.
    Other,
}

impl Clusters {
    pub(super) fn new(access: Access, host: Host, size: u64, behind: u64) -> Self {
        let (order, unsaved) = (Mutex::new(false), AtomicBool::new(false));
        Self { access, host, size, behind, order, unsaved }
    }

    pub(super) fn len(&self) -> u64 {
        self.access.size()
    }

    pub(super) fn read(&self, mut offset: u64, data: &mut Writer<'_>) -> io::Result<()> {
        let mut chunk = self.chunk(data.len());
        while !data.is_empty() {
            let here = chunk.bytes(data.len());
            self.get(offset, here)?;
            offset = offset.saturating_add(data.copy_from(here) as u64);
        }
        Ok(())
    }

    pub(super) fn write(&self, mut offset: u64, data: &mut Reader<'_>) -> io::Result<()> {
        let mut chunk = self.chunk(data.len());
        while !data.is_empty() {
            let here = chunk.bytes(data.len());
            let count = data.copy_to(here) as u64;
            self.put(offset, here)?;
            offset = offset.saturating_add(count);
        }
        Ok(())
    }

    /// Memory for a request of so many bytes, which need not be copied once more.
    fn chunk(&self, len: usize) -> Aligned {
        Aligned::new(len.min(CHUNK), self.access.mem_align())
    }

    pub(super) fn get(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.access.read(bytes, offset)
    }

    pub(super) fn put(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (part, len) = self.part(offset, bytes.len() as u64)?;
            let (here, rest) = bytes.split_at(bytes.len().min(len as usize));
            match part {
                Part::Own(_) => {
                    self.access.write(here, offset)?;
                    // Another request may have made the cluster, and not be done with it.
                    fence(Ordering::SeqCst);
                    if self.unsaved.load(Ordering::SeqCst) {
                        self.save(&mut self.lock())?;
                    }
                }
                Part::Zeroes => self.allocate(offset, here, false)?,
                Part::Behind | Part::Other => self.allocate(offset, here, true)?,
            }
            offset = offset.saturating_add(here.len() as u64);
            bytes = rest;
        }
        Ok(())
    }

    /// Writes to a cluster that is not there yet. It `keeps` what was read in its place.
    fn allocate(&self, offset: u64, bytes: &[u8], keeps: bool) -> io::Result<()> {
        let mut order = self.lock();
        self.unsaved.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        *order |= keeps;
        self.access.write(bytes, offset)?;
        let mut at = 0;
        while at < bytes.len() as u64 {
            let left = (bytes.len() as u64).saturating_sub(at);
            let (part, len) = self.part(offset.saturating_add(at), left)?;
            *order |= matches!(part, Part::Own(place) if self.host.is_reused(place.start));
            at = at.saturating_add(len);
        }
        self.save(&mut order)
    }

    /// Brings the tables out of this process.
    fn save(&self, order: &mut bool) -> io::Result<()> {
        if self.unsaved.load(Ordering::SeqCst) {
            if *order {
                self.host.settle()?;
                *order = false;
            }
            self.access.flush()?;
            self.unsaved.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is at `offset`, and how many bytes of that there are.
    fn part(&self, offset: u64, most: u64) -> io::Result<(Part, u64)> {
        let (mapping, len) = self.access.get_shallow_mapping(offset, most)?;
        let (part, len) = match mapping {
            ShallowMapping::Raw { offset, writable: true, .. } => {
                (Part::Own(offset..offset.saturating_add(len)), len)
            }
            ShallowMapping::Zero { .. } => (Part::Zeroes, len),
            ShallowMapping::Indirect { .. } => (Part::Behind, len),
            ShallowMapping::Eof { .. } => return Err(io::ErrorKind::UnexpectedEof.into()),
            // One cluster at a time: its space may be used for the next, so the table comes first.
            _ => (Part::Other, len.min(self.rest(offset))),
        };
        if len == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok((part, len)) }
    }

    /// How much of its cluster is behind `offset`.
    fn rest(&self, offset: u64) -> u64 {
        self.size.saturating_sub(offset.checked_rem(self.size).unwrap_or(0))
    }

    pub(super) fn discard(&mut self, range: Range) -> io::Result<()> {
        let (start, end) = self.whole(range);
        self.give_up(start, end, |clusters, offset, len, part| match part {
            // What is behind must not show instead, and takes no space here.
            Part::Behind => Ok(false),
            _ => match clusters.access.discard_to_any(offset, len) {
                // Version 2 has no clusters of zeroes.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(false),
                done => done.map(|()| true),
            },
        })
    }

    pub(super) fn write_zeroes(&mut self, range: Range) -> io::Result<()> {
        let (start, end) = self.whole(range);
        let last = range.offset.saturating_add(range.len);
        if end <= start {
            return self.put_zeroes(range.offset, last);
        }
        self.put_zeroes(range.offset, start)?;
        self.give_up(start, end, |clusters, offset, len, _| {
            let done = if range.unmap {
                clusters.access.discard_to_zero(offset, len)
            } else {
                clusters.access.write_zeroes(offset, len)
            };
            match done {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    clusters.put_zeroes(offset, offset.saturating_add(len)).map(|()| false)
                }
                done => done.map(|()| range.unmap),
            }
        })?;
        self.put_zeroes(end, last)
    }

    /// The whole clusters of a range; the disk's last may be shorter.
    fn whole(&self, range: Range) -> (u64, u64) {
        let end = range.offset.saturating_add(range.len);
        let start = range.offset.checked_next_multiple_of(self.size).unwrap_or(u64::MAX);
        let part = end.checked_rem(self.size).unwrap_or(0);
        (start, if end == self.len() { end } else { end.saturating_sub(part) })
    }

    /// Does `change` to what does not read as zeroes yet, which says whether its space is free then.
    fn give_up(
        &mut self,
        start: u64,
        end: u64,
        change: impl Fn(&mut Self, u64, u64, &Part) -> io::Result<bool>,
    ) -> io::Result<()> {
        let mut freed = Vec::new();
        let mut at = start;
        self.save(&mut self.lock())?;
        while at < end {
            let (part, len) = self.part(at, end.saturating_sub(at))?;
            // Tables for what has none yet take any free space.
            if !matches!(part, Part::Own(_)) || freed.len() >= PIECE {
                self.free(&mut freed)?;
            }
            if part != Part::Zeroes {
                self.unsaved.store(true, Ordering::SeqCst);
                let free = change(self, at, len, &part)?;
                match part {
                    Part::Own(place) if free => freed.push(place),
                    // It is not known where that was, and something may lie there next.
                    Part::Other => {
                        let mut order = self.lock();
                        *order = true;
                        self.save(&mut order)?;
                    }
                    _ => {}
                }
            }
            at = at.saturating_add(len);
        }
        self.free(&mut freed)
    }

    /// Gives space back, to which nothing refers any more. It may only be overwritten when a power
    /// cut does not bring the references back.
    fn free(&self, places: &mut Vec<Span<u64>>) -> io::Result<()> {
        self.save(&mut self.lock())?;
        if !places.is_empty() {
            self.host.settle()?;
        }
        places.drain(..).for_each(|place| self.host.punch(&place));
        Ok(())
    }

    fn put_zeroes(&self, mut offset: u64, end: u64) -> io::Result<()> {
        static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
        while offset < end {
            let left = end.saturating_sub(offset).min(ZEROES.len() as u64);
            let (part, len) = self.part(offset, left)?;
            if part != Part::Zeroes {
                self.put(offset, ZEROES.get(..len as usize).unwrap_or_default())?;
            }
            offset = offset.saturating_add(len);
        }
        Ok(())
    }

    /// Returns when all that was written before is on stable storage.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.save(&mut self.lock())?;
        self.host.settle()
    }

    /// Leaves the file as short as it may be, and complete.
    pub(super) fn close(self) -> io::Result<()> {
        self.flush()?;
        let Self { access, host, .. } = self;
        drop(access);
        host.trim()?;
        host.settle()
    }

    #[cfg(test)]
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn grow(&mut self, len: u64) -> io::Result<()> {
        // What is behind must not show where the disk ended.
        let mode =
            if self.behind > self.len() { PreallocateMode::Zero } else { PreallocateMode::None };
        self.flush()?;
        self.unsaved.store(true, Ordering::SeqCst);
        self.access.resize_grow(len, mode)?;
        self.flush()
    }
}
