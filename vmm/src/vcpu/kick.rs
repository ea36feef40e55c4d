//! Getting a vCPU out of the guest: a signal for a thread that is in it, and KVM's
//! `immediate_exit` for one that is just about to enter. No wake-up can fall between the two.

use std::mem::offset_of;
use std::os::fd::AsFd;
use std::os::unix::thread::JoinHandleExt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::{mem, ptr};

use kvm_bindings::{kvm_run, kvm_run__bindgen_ty_1, kvm_run__bindgen_ty_1__bindgen_ty_4};
use kvm_ioctls::VcpuFd;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The first page of what KVM shares with a vCPU's user: a mapping of our own beside that of
/// [`VcpuFd`], so that other threads can reach two of its bytes while the vCPU runs.
pub(super) struct RunPage(NonNull<kvm_run>);

// SAFETY: the mapping belongs to no thread, and is only reached through `&self` below: one byte
// atomically, and one byte that KVM writes only within KVM_RUN, by the thread that calls KVM_RUN.
unsafe impl Send for RunPage {}
// SAFETY: as above.
unsafe impl Sync for RunPage {}

impl RunPage {
    pub(super) fn map(vcpu: &VcpuFd) -> Result<Self, Errno> {
        let len = size_of::<kvm_run>().try_into().map_err(|_zero| Errno::EINVAL)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing. The fd is
        // a vCPU's, whose mapping begins with a `kvm_run` and is at least that large.
        let page =
            unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, BorrowedVcpu(vcpu), 0) }?;
        Ok(Self(page.cast()))
    }

    /// Has the next KVM_RUN, or the one that a signal interrupts, return at once with EINTR.
    pub(super) fn set_immediate_exit(&self, exit: bool) {
        // SAFETY: the field lies in the mapping, which lives as long as `self`.
        let field = unsafe { &raw mut (*self.0.as_ptr()).immediate_exit };
        // SAFETY: a byte is always aligned, and it is reached atomically by everybody: here, and
        // by the kernel with READ_ONCE. `VcpuFd` would write it only if it were asked to.
        let field = unsafe { AtomicU8::from_ptr(field) };
        field.store(exit.into(), Ordering::SeqCst);
    }

    /// After an exit for port I/O: how many bytes one access has.
    ///
    /// `VcpuFd` tells only the bytes of all accesses of a string instruction together. Only for
    /// the vCPU's own thread.
    pub(super) fn port_access_size(&self) -> usize {
        const OFFSET: usize = offset_of!(kvm_run, __bindgen_anon_1)
            + offset_of!(kvm_run__bindgen_ty_1, io)
            + offset_of!(kvm_run__bindgen_ty_1__bindgen_ty_4, size);
        // SAFETY: the offset is that of a field, thus within the mapping.
        let size = unsafe { self.0.as_ptr().cast::<u8>().add(OFFSET) };
        // SAFETY: the kernel writes the byte only in KVM_RUN, which this thread is not in.
        usize::from(unsafe { ptr::read_volatile(size) })
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: it is one whole mapping of ours, and nothing borrows from it beyond `self`.
        // Failure would leave it mapped, which harms nobody.
        let _unmapped = unsafe { munmap(self.0.cast(), size_of::<kvm_run>()) };
    }
}

/// `VcpuFd` has its descriptor only as a raw one.
struct BorrowedVcpu<'a>(&'a VcpuFd);

impl AsFd for BorrowedVcpu<'_> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::{AsRawFd, BorrowedFd};
        // SAFETY: the descriptor is open as long as the `VcpuFd`, which outlives the result.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

/// Kicks one vCPU.
pub(super) struct Kicker(Arc<RunPage>);

impl Kicker {
    pub(super) fn new(page: Arc<RunPage>) -> Self {
        Self(page)
    }

    /// Makes KVM_RUN on `thread` return with EINTR, be it now or the next time.
    pub(super) fn kick(&self, thread: &JoinHandle<()>) {
        self.0.set_immediate_exit(true);
        // SAFETY: the thread has not been joined, as its handle is here, so its id is valid; the
        // signal has a handler (`install`). It fails only if the thread has ended, and then
        // there is nothing to stop.
        let _ended = unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGRTMIN()) };
    }
}

/// Gives the kicking signal a handler: without one it would end the process.
pub(super) fn install() -> Result<(), Errno> {
    extern "C" fn interrupt(_signal: libc::c_int) {}
    // SAFETY: all-zero is a valid `sigaction`: no flags, nothing blocked meanwhile.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = interrupt as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: `action` is initialized and its handler is of the kind that no SA_SIGINFO asks for.
    // The handler does nothing, so it is async-signal-safe. Without SA_RESTART, KVM_RUN returns.
    let done = unsafe { libc::sigaction(libc::SIGRTMIN(), &action, ptr::null_mut()) };
    Errno::result(done).map(drop)
}
