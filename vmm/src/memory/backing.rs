//! The system calls under guest memory: memfd, seals, mappings and what their failures mean.

use std::fs::File;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use tap::TapFallible;
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{FileOffset, GuestRegionMmap, MmapRegion};

use super::{MemoryError, MemorySpec, host};

/// A memfd of the size asked for that can neither shrink nor grow, whoever gets hold of it: with
/// it in hand no device process can make another, or us, fault.
pub(super) fn sealed(spec: &MemorySpec) -> Result<File, MemoryError> {
    let size = i64::try_from(spec.size)
        .map_err(|_wider| MemoryError::TooLarge { size: spec.size, host: host::memory().total })?;
    let huge = match spec.hugepages {
        None => MFdFlags::empty(),
        // memfd_create(2): the base-2 logarithm of the page size stands in the flags' upper bits.
        Some(page) => MFdFlags::from_bits_retain(
            libc::MFD_HUGETLB | (page.trailing_zeros() << libc::MFD_HUGE_SHIFT),
        ),
    };
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | huge;
    let fd = memfd_create(c"guest-memory", flags).map_err(|source| match spec.hugepages {
        Some(page) if matches!(source, Errno::ENODEV | Errno::EINVAL) => {
            MemoryError::NoSuchHugepages { page }
        }
        _ => MemoryError::System { action: "create a memfd for", size: spec.size, source },
    })?;
    let file = File::from(fd);
    let failed = |action| move |source| MemoryError::System { action, size: spec.size, source };
    ftruncate(&file, size).map_err(failed("make room for"))?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals)).map_err(failed("seal"))?;
    Ok(file)
}

/// Maps `len` bytes of the memfd, aligned as its pages are, and asks for huge pages in it.
pub(super) fn map(spec: &MemorySpec, len: u64, place: FileOffset) -> Result<MmapRegion, Errno> {
    let len = usize::try_from(len).map_err(|_wider| Errno::ENOMEM)?;
    // Huge pages are reserved here, or else refused here: without, their lack is a SIGBUS later.
    let reserve = if spec.hugepages.is_some() { 0 } else { libc::MAP_NORESERVE };
    let region = MmapRegionBuilder::new(len)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED | reserve)
        .with_file_offset(place)
        .with_hugetlbfs(spec.hugepages.is_some())
        .build()
        .map_err(|error| match error {
            MmapRegionError::Mmap(error) => Errno::from_raw(error.raw_os_error().unwrap_or(0)),
            _ => Errno::EINVAL,
        })?;
    if spec.hugepages.is_none() {
        // With shmem_enabled=advise the host gives 2 MiB pages to those who ask, and aligns such
        // mappings to them. Where it does not, the guest runs all the same.
        // SAFETY: the range is the whole mapping just made, and the advice changes no content.
        let advised =
            unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_HUGEPAGE) };
        let _ok = Errno::result(advised)
            .tap_err(|error| tracing::debug!("the host has no huge pages for the asking: {error}"));
    }
    // A core dump of the VMM is not a copy of the guest.
    // SAFETY: as above.
    let advised =
        unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_DONTDUMP) };
    Errno::result(advised).map(|_zero| region)
}

/// Takes every page of a region and enters it in the page tables, as writing to it would.
/// `EINVAL` from kernels before 5.14.
pub(super) fn populate(region: &GuestRegionMmap) -> Result<(), Errno> {
    let mapping = region.get_mmap();
    loop {
        // SAFETY: the range is one whole mapping of ours, and its content does not change.
        let done = unsafe {
            libc::madvise(mapping.as_ptr().cast(), mapping.size(), libc::MADV_POPULATE_WRITE)
        };
        match Errno::result(done) {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            done => return done.map(drop),
        }
    }
}

/// What a failure to get pages means for a guest that wants `spec`.
pub(super) fn explain<T>(result: Result<T, Errno>, spec: &MemorySpec) -> Result<T, MemoryError> {
    let size = spec.size;
    result.map_err(|source| match (source, spec.hugepages) {
        (Errno::ENOMEM | Errno::ENOSPC | Errno::EFAULT, Some(page)) => {
            MemoryError::NoFreeHugepages {
                page,
                needed: size / page.max(1),
                free: host::free_hugepages(page).unwrap_or(0),
            }
        }
        (Errno::ENOMEM | Errno::ENOSPC, None) => {
            MemoryError::NotAvailable { size, available: host::memory().available }
        }
        _ => MemoryError::System { action: "map", size, source },
    })
}
