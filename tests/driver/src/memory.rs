//! Memory that plays the guest's: memfds that a device process can map, and an allocator on top.
//!
//! Nothing is ever freed; a test that needs much memory reuses its buffers.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::{
    Address, Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap,
    GuestMemoryRegion,
};

use crate::Error;

/// Where the first region starts. Not zero, so that forgotten addresses are not valid ones.
const BASE: u64 = 0x1_0000;

/// Guest memory shared with a device process. Clones are the same memory.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    regions: GuestMemoryMmap,
    next: AtomicU64,
    end: u64,
}

impl Memory {
    /// One region of `len` bytes.
    ///
    /// # Errors
    /// [`Error::CreateMemory`] when the kernel has none.
    pub fn new(len: u64) -> Result<Self, Error> {
        Self::with_regions(&[(BASE, len)])
    }

    /// Regions of `(guest address, bytes)`, each a memfd of its own. The allocator hands out the
    /// first one only; the others are reached by address.
    ///
    /// # Errors
    /// [`Error::CreateMemory`] when the kernel has none or the regions overlap.
    pub fn with_regions(regions: &[(u64, u64)]) -> Result<Self, Error> {
        let mut ranges = Vec::with_capacity(regions.len());
        for &(base, len) in regions {
            let failed = |source| Error::CreateMemory { len, source };
            let fd = memfd_create(c"driver", MFdFlags::MFD_CLOEXEC)
                .map_err(|errno| failed(errno.into()))?;
            let file = File::from(fd);
            file.set_len(len).map_err(failed)?;
            let size = usize::try_from(len).unwrap_or(usize::MAX);
            ranges.push((GuestAddress(base), size, Some(FileOffset::new(file, 0))));
        }
        let (base, len) = regions.first().copied().unwrap_or((BASE, 0));
        let regions = GuestMemoryMmap::from_ranges_with_files(ranges)
            .map_err(|error| Error::CreateMemory { len, source: std::io::Error::other(error) })?;
        let end = base.saturating_add(len);
        Ok(Self(Arc::new(Inner { regions, next: AtomicU64::new(base), end })))
    }

    /// The regions as vm-memory knows them.
    pub fn regions(&self) -> &GuestMemoryMmap {
        &self.0.regions
    }

    /// The first address after what [`Memory::allocate`] can hand out.
    pub fn end(&self) -> u64 {
        self.0.end
    }

    /// Takes `len` bytes at a multiple of `align`, zeroed if never written.
    ///
    /// # Errors
    /// [`Error::NoMemory`] when they are used up.
    pub fn allocate(&self, len: usize, align: u64) -> Result<u64, Error> {
        let full = Error::NoMemory { len };
        let mut taken = 0;
        let next = |next: u64| {
            taken = next.checked_next_multiple_of(align.max(1))?;
            let after = taken.checked_add(u64::try_from(len).ok()?)?;
            (after <= self.0.end).then_some(after)
        };
        match self.0.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Ok(taken),
            Err(_) => Err(full),
        }
    }

    /// Allocates room for `bytes` and writes them there.
    ///
    /// # Errors
    /// [`Error::NoMemory`] when there is no room.
    pub fn put(&self, bytes: &[u8]) -> Result<u64, Error> {
        let address = self.allocate(bytes.len(), 1)?;
        self.write(address, bytes)?;
        Ok(address)
    }

    /// Writes `bytes` at a guest address.
    ///
    /// # Errors
    /// [`Error::Access`] outside the memory.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        self.0.regions.write_slice(bytes, GuestAddress(address)).map_err(|source| Error::Access {
            address,
            len: bytes.len(),
            source,
        })
    }

    /// Reads `len` bytes from a guest address.
    ///
    /// # Errors
    /// [`Error::Access`] outside the memory.
    pub fn get(&self, address: u64, len: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len];
        self.0
            .regions
            .read_slice(&mut bytes, GuestAddress(address))
            .map_err(|source| Error::Access { address, len, source })?;
        Ok(bytes)
    }

    /// Reads a little-endian u16 that the device may write meanwhile.
    pub(crate) fn load(&self, address: u64) -> Result<u16, Error> {
        let value = self.0.regions.load::<u16>(GuestAddress(address), Ordering::Acquire);
        value.map(u16::from_le).map_err(|source| Error::Access { address, len: 2, source })
    }

    /// Writes a little-endian u16 that the device may read meanwhile.
    pub(crate) fn store(&self, address: u64, value: u16) -> Result<(), Error> {
        self.0
            .regions
            .store(value.to_le(), GuestAddress(address), Ordering::Release)
            .map_err(|source| Error::Access { address, len: 2, source })
    }

    /// Cuts the first region off behind its first `len` bytes. Whoever touches what was behind is
    /// killed by it, this process too.
    ///
    /// # Errors
    /// The system's.
    pub fn cut(&self, len: u64) -> Result<(), Error> {
        let first = self.0.regions.iter().next().and_then(|region| region.file_offset());
        let cut = first.map_or(Ok(()), |file| file.file().set_len(len));
        cut.map_err(|source| Error::system("cutting guest memory", source))
    }

    /// The address in this process, which is what SET_VRING_ADDR speaks of.
    pub(crate) fn user_address(&self, address: u64) -> Result<u64, Error> {
        match self.0.regions.get_host_address(GuestAddress(address)) {
            Ok(pointer) => Ok(pointer as u64),
            Err(source) => Err(Error::Access { address, len: 0, source }),
        }
    }

    /// The table for SET_MEM_TABLE.
    pub fn table(&self) -> Vec<VhostUserMemoryRegionInfo> {
        let regions = self.0.regions.iter().filter_map(|region| {
            let file = region.file_offset()?;
            Some(VhostUserMemoryRegionInfo {
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
                mmap_offset: file.start(),
                mmap_handle: file.file().as_raw_fd(),
            })
        });
        regions.collect()
    }
}
