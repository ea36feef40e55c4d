//! The system calls under guest memory: memfd, seals, mappings and what their failures mean.

use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use nix::unistd::ftruncate;
use tap::TapFallible;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

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

/// madvise(2), since Linux 6.1; not yet in `libc`.
const MADV_COLLAPSE: libc::c_int = 25;
/// The huge page that ordinary memory can become (transparent huge pages).
const HUGE: usize = 2 << 20;

/// Maps `len` bytes of the memfd where huge pages can back them, and asks for those.
///
/// The mapping is never taken away: guest memory lives as long as the process, and a clone of the
/// memory map, which anybody may keep, must not dangle.
pub(super) fn map(spec: &MemorySpec, len: u64, place: FileOffset) -> Result<MmapRegion, Errno> {
    let len = usize::try_from(len).ok().and_then(NonZeroUsize::new).ok_or(Errno::ENOMEM)?;
    let huge = spec.hugepages.and_then(|page| usize::try_from(page).ok()).unwrap_or(0);
    let start = reserve(len, huge.max(HUGE))?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let mut flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
    if spec.hugepages.is_none() {
        // Huge pages are reserved here, or else refused here: without, their lack is a SIGBUS
        // later. For ordinary pages that would be to refuse what the host can swap.
        flags |= MapFlags::MAP_NORESERVE;
    }
    let offset = place.start().cast_signed();
    // SAFETY: the range replaced is the one that `reserve` took, which nobody else knows.
    let address = unsafe { mmap(Some(start), len, protection, flags, place.file(), offset) }?;
    let builder = MmapRegionBuilder::new(len.get())
        .with_mmap_prot(protection.bits())
        .with_mmap_flags(flags.bits())
        .with_hugetlbfs(spec.hugepages.is_some())
        .with_file_offset(place);
    // SAFETY: the mapping is as long as was said, and is never taken away.
    let builder = unsafe { builder.with_raw_mmap_pointer(address.as_ptr().cast()) };
    let region = builder.build().map_err(|_unaligned| Errno::EINVAL)?;
    if spec.hugepages.is_none() {
        // With shmem_enabled=advise the host gives 2 MiB pages to those who ask. Where it does
        // not, the guest runs all the same.
        let _ok = advise(&region, 0..len.get(), libc::MADV_HUGEPAGE)
            .tap_err(|error| tracing::debug!("the host has no transparent huge pages: {error}"));
    }
    // A core dump of the VMM is not a copy of the guest.
    advise(&region, 0..len.get(), libc::MADV_DONTDUMP)?;
    Ok(region)
}

/// Takes `len` bytes of address space at a multiple of `alignment`, with nothing behind them.
fn reserve(len: NonZeroUsize, alignment: usize) -> Result<NonZeroUsize, Errno> {
    let whole = len.checked_add(alignment).ok_or(Errno::ENOMEM)?;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let first = unsafe { mmap_anonymous(None, whole, ProtFlags::PROT_NONE, flags) }?;
    let start = first.addr().get().next_multiple_of(alignment);
    let head = start - first.addr().get();
    let tail = alignment - head;
    if head > 0 {
        // SAFETY: it is the beginning of the mapping just made, and nothing is in it.
        unsafe { munmap(first, head) }?;
    }
    // SAFETY: the sum is within the mapping, which is longer by `alignment`.
    let end = unsafe { first.byte_add(head + len.get()) };
    if tail > 0 {
        // SAFETY: it is the end of the mapping just made, and nothing is in it.
        unsafe { munmap(end, tail) }?;
    }
    NonZeroUsize::new(start).ok_or(Errno::ENOMEM)
}

/// Takes every page of a region and enters it in the page tables, as writing to it would.
/// `EINVAL` from kernels before 5.14.
pub(super) fn populate(region: &MmapRegion) -> Result<(), Errno> {
    collapse(region, 0..region.size());
    advise(region, 0..region.size(), libc::MADV_POPULATE_WRITE)
}

/// Has huge pages behind all of `range`, as far as the kernel can (6.1 and newer). Other than
/// advice this does not depend on how the host's administrator has set shmem_enabled, so it is for
/// memory that is used up at once anyway.
pub(super) fn collapse(region: &MmapRegion, range: Range<usize>) {
    let first = range.start.next_multiple_of(HUGE);
    let last = (range.end / HUGE * HUGE).max(first);
    // Where no page is at all there is nothing to collapse, so the first of each is touched.
    for start in (first..last).step_by(HUGE) {
        let Ok(byte) = region.get_atomic_ref::<AtomicU8>(start) else { return };
        byte.load(Ordering::Relaxed);
    }
    // One call for all, as each makes every processor empty its lists of new pages first.
    let _ok = advise(region, first..last, MADV_COLLAPSE)
        .tap_err(|error| tracing::debug!("the host did not collapse all pages: {error}"));
}

/// madvise(2) with an advice that keeps what is in the range.
fn advise(region: &MmapRegion, range: Range<usize>, advice: libc::c_int) -> Result<(), Errno> {
    let range = region.get_slice(range.start, range.len()).map_err(|_outside| Errno::EINVAL)?;
    let start = range.ptr_guard_mut();
    loop {
        // SAFETY: the range lies in a mapping of ours, as its owner has just said, and nobody who
        // reads or writes it sees a difference.
        let done = unsafe { libc::madvise(start.as_ptr().cast(), range.len(), advice) };
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
