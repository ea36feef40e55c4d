//! Guest memory: one sealed memfd, mapped here and handed to every device process.
//!
//! It lives as long as the VMM; a guest's reboot only empties it. What is put into it is written
//! elsewhere, and where it stands in the guest is [`layout`].

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
};

use crate::config::Size;

mod backing;
mod host;

pub use crate::arch::layout;

/// The least memory that a stock kernel gets anywhere with.
const LEAST: u64 = 64 << 20;
const PAGE: u64 = 4096;

/// What guest memory is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySpec {
    /// Bytes.
    pub size: u64,
    /// The size of the huge pages to take it from; ordinary pages without.
    pub hugepages: Option<u64>,
    /// Whether all of it is taken from the host before the guest starts.
    pub prefault: bool,
}

/// Why guest memory can't be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// No kernel boots in it.
    #[error("{} of memory is too small for a guest; the least is {}", Size(*.size), Size(LEAST))]
    TooSmall {
        /// What was asked for.
        size: u64,
    },
    /// It can't even be had by swapping.
    #[error(
        "{} of memory is too large for this host, which has {} of memory and swap",
        Size(*.size), Size(*.host)
    )]
    TooLarge {
        /// What was asked for.
        size: u64,
        /// What there is.
        host: u64,
    },
    /// Now is now: unlike the case above, all of it would be used at once.
    #[error(
        "{} of memory can't be prefaulted, as only {} is available on this host now",
        Size(*.size), Size(*.available)
    )]
    NotAvailable {
        /// What was asked for.
        size: u64,
        /// What the kernel says is available without swapping.
        available: u64,
    },
    /// A page can't be halved.
    #[error("{} of memory is not a multiple of the page size, {}", Size(*.size), Size(*.page))]
    NotWholePages {
        /// What was asked for.
        size: u64,
        /// The size of a page, or of a huge page.
        page: u64,
    },
    /// No such huge pages in this processor or kernel.
    #[error("this host has no huge pages of {}", Size(*.page))]
    NoSuchHugepages {
        /// Their size.
        page: u64,
    },
    /// Too few in the pool.
    #[error(
        "{needed} free huge pages of {} are needed and this host has {free}; \
         reserve them by writing to {}/nr_hugepages", Size(*.page), host::hugepage_pool(*.page)
    )]
    NoFreeHugepages {
        /// Their size.
        page: u64,
        /// How many the guest takes.
        needed: u64,
        /// How many there are.
        free: u64,
    },
    /// A system call that should work did not.
    #[error("can't {action} {} of guest memory", Size(*.size))]
    System {
        /// What was being done.
        action: &'static str,
        /// What was asked for.
        size: u64,
        /// Why.
        source: Errno,
    },
}

/// A stretch of guest memory in all the address spaces it is in.
#[derive(Clone, Copy, Debug)]
pub struct RamRegion<'a> {
    /// Where the guest has it.
    pub guest_address: u64,
    /// Length in bytes.
    pub size: u64,
    /// Where this process has it.
    pub user_address: u64,
    /// Where it is in the memfd.
    pub file_offset: u64,
    /// The memfd.
    pub fd: BorrowedFd<'a>,
}

/// The guest's memory.
#[derive(Debug)]
pub struct GuestRam {
    spec: MemorySpec,
    file: Arc<File>,
    memory: GuestMemoryMmap,
}

impl GuestRam {
    /// Takes memory from the host. All of it reads as zeroes.
    ///
    /// # Errors
    /// [`MemoryError`], each a sentence that names the size and the limit.
    pub fn new(spec: &MemorySpec) -> Result<Self, MemoryError> {
        check(spec)?;
        let file = Arc::new(backing::sealed(spec)?);
        let ram = Self { spec: *spec, memory: map(spec, &file)?, file };
        if spec.prefault {
            ram.prefault()?;
        }
        Ok(ram)
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.spec.size
    }

    /// The memory by guest-physical addresses.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Its stretches in ascending order, as a device process is told of them.
    pub fn regions(&self) -> impl Iterator<Item = RamRegion<'_>> {
        self.memory.iter().map(|region| RamRegion {
            guest_address: region.start_addr().0,
            size: region.len(),
            user_address: user_address(region),
            file_offset: region.file_offset().map_or(0, FileOffset::start),
            fd: self.file.as_fd(),
        })
    }

    /// Empties it for another boot: all of it reads as zeroes, here and in the device processes.
    ///
    /// No vCPU and no device may run.
    ///
    /// # Errors
    /// [`MemoryError::System`], and [`MemoryError::NoFreeHugepages`] where somebody else took the
    /// huge pages meanwhile.
    pub fn clear(&self) -> Result<(), MemoryError> {
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        self.fallocate(punch).map_err(|source| self.failed("give back", source))?;
        if self.spec.hugepages.is_some() {
            // The hole also gave up the reservation made at mmap, and a fault without one is a
            // SIGBUS. So the pages are taken again now, while it can be said in words.
            return backing::explain(self.fallocate(FallocateFlags::empty()), &self.spec);
        }
        if self.spec.prefault {
            self.prefault()?;
        }
        Ok(())
    }

    /// Puts all of it into a VM that has no memory yet, as slots from 0.
    ///
    /// Whoever runs a vCPU of `vm` keeps the [`GuestRam`] alive meanwhile, as [`crate::vcpu`] does.
    ///
    /// # Errors
    /// [`MemoryError::System`]
    pub fn attach(&self, vm: &VmFd) -> Result<(), MemoryError> {
        for (slot, region) in (0..).zip(self.regions()) {
            let slot = kvm_userspace_memory_region {
                slot,
                guest_phys_addr: region.guest_address,
                memory_size: region.size,
                userspace_addr: region.user_address,
                flags: 0,
            };
            // SAFETY: the range is one whole mapping of ours and no other slot has it. KVM reads
            // and writes it only while a vCPU runs, and vCPU threads hold the `GuestRam`.
            let set = unsafe { vm.set_user_memory_region(slot) };
            set.map_err(|error| {
                self.failed("give the virtual machine", Errno::from_raw(error.errno()))
            })?;
        }
        Ok(())
    }

    /// Says that `range` is to be used up at once, as by a kernel that is about to be put there.
    ///
    /// The host is asked for huge pages: a guest's first touches of a page cost an exit each.
    pub fn will_use(&self, range: Range<u64>) {
        for region in self.memory.iter() {
            let start = region.start_addr().0;
            let within = |address: u64| address.clamp(start, start.saturating_add(region.len()));
            let offset = |address| usize::try_from(within(address) - start).unwrap_or(0);
            backing::collapse(&region.get_mmap(), offset(range.start)..offset(range.end));
        }
    }

    /// Takes every page from the host, and enters it in our page tables where the kernel can
    /// (5.14 and newer), so that a vCPU's first touch of a page finds it.
    fn prefault(&self) -> Result<(), MemoryError> {
        for region in self.memory.iter() {
            match backing::populate(&region.get_mmap()) {
                Ok(()) => {}
                Err(Errno::EINVAL) => {
                    let allocated = self.fallocate(FallocateFlags::empty());
                    return backing::explain(allocated, &self.spec);
                }
                Err(source) => return backing::explain(Err(source), &self.spec),
            }
        }
        Ok(())
    }

    fn fallocate(&self, flags: FallocateFlags) -> Result<(), Errno> {
        let len = i64::try_from(self.spec.size).unwrap_or(i64::MAX);
        loop {
            match fallocate(&self.file, flags, 0, len) {
                Err(Errno::EINTR) => {}
                done => return done,
            }
        }
    }

    fn failed(&self, action: &'static str, source: Errno) -> MemoryError {
        MemoryError::System { action, size: self.spec.size, source }
    }
}

/// Whether a guest of this size can be on this host at all.
fn check(spec: &MemorySpec) -> Result<(), MemoryError> {
    let MemorySpec { size, hugepages, prefault } = *spec;
    if size < LEAST {
        return Err(MemoryError::TooSmall { size });
    }
    let page = hugepages.unwrap_or(PAGE);
    if !size.is_multiple_of(page) {
        return Err(MemoryError::NotWholePages { size, page });
    }
    let host = host::memory();
    if size > host.total {
        return Err(MemoryError::TooLarge { size, host: host.total });
    }
    match hugepages {
        Some(page) => {
            let free = host::free_hugepages(page).ok_or(MemoryError::NoSuchHugepages { page })?;
            let needed = size / page;
            if free < needed {
                return Err(MemoryError::NoFreeHugepages { page, needed, free });
            }
        }
        None if prefault && size > host.available => {
            return Err(MemoryError::NotAvailable { size, available: host.available });
        }
        None => {}
    }
    Ok(())
}

fn map(spec: &MemorySpec, file: &Arc<File>) -> Result<GuestMemoryMmap, MemoryError> {
    let mut regions = Vec::new();
    let mut file_offset = 0;
    for range in layout::ram_ranges(spec.size) {
        let region = backing::map(spec, range.len, FileOffset::from_arc(file.clone(), file_offset));
        let region = backing::explain(region, spec)?;
        let region = GuestRegionMmap::new(region, GuestAddress(range.start));
        regions.push(region.ok_or(MemoryError::TooLarge { size: spec.size, host: u64::MAX })?);
        file_offset += range.len;
    }
    GuestMemoryMmap::from_regions(regions)
        .map_err(|_overlap| MemoryError::TooLarge { size: spec.size, host: u64::MAX })
}

/// Where this process has the region.
fn user_address(region: &GuestRegionMmap) -> u64 {
    region.get_mmap().as_ptr() as u64
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;
