//! Memory that a front-end shares and then cuts short. To touch what is no longer there is fatal
//! (SIGBUS), and no seal can be demanded that forbids to cut it: guest memory in a plain file, which
//! is common, has none. So what is gone is replaced by zeroes, and the rings that stand on it stop.
//!
//! It does not notice what nobody touches; and a system call that is given such memory just fails.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use libc::{c_int, c_void, siginfo_t};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// As many mappings as a front-end can have (`MemoryTable::MAX_SLOTS`), twice while one table is
/// replaced by another, and the records of what is in flight.
const MAPPINGS: usize = 1024;

/// Addresses at which to replace what is lost; all zero when it is not in use.
struct Mapping {
    start: AtomicUsize,
    end: AtomicUsize,
}

// A signal's handler may use nothing but atomics and system calls, so it is a plain table.
static MAPPED: [Mapping; MAPPINGS] =
    [const { Mapping { start: AtomicUsize::new(0), end: AtomicUsize::new(0) } }; MAPPINGS];

/// How often something was replaced.
static LOSSES: AtomicU64 = AtomicU64::new(0);

/// How often memory was lost so far. When that has changed, what was read since means nothing.
pub(crate) fn losses() -> u64 {
    LOSSES.load(Ordering::Relaxed)
}

/// Keeps this process alive when shared memory that is [`Watched`] is lost.
pub(crate) fn survive() -> io::Result<()> {
    let action =
        SigAction::new(SigHandler::SigAction(on_fault), SaFlags::SA_SIGINFO, SigSet::empty());
    // SAFETY: the handler makes system calls and uses atomics, nothing else.
    unsafe { sigaction(Signal::SIGBUS, &action) }?;
    Ok(())
}

/// A mapping of shared memory, from when it is made to when nobody uses it any more.
pub(crate) struct Watched(Option<&'static Mapping>);

impl Watched {
    /// Watches over `len` bytes from `start` on.
    pub(crate) fn new(start: *mut u8, len: usize) -> Self {
        let start = start as usize;
        let free = |mapping: &&Mapping| {
            let claimed =
                mapping.start.compare_exchange(0, start, Ordering::Relaxed, Ordering::Relaxed);
            claimed.is_ok()
        };
        let mapping = MAPPED.iter().find(free);
        if let Some(mapping) = mapping {
            mapping.end.store(start.saturating_add(len), Ordering::Release);
        }
        Self(mapping)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(mapping) = self.0 {
            mapping.end.store(0, Ordering::Relaxed);
            mapping.start.store(0, Ordering::Release);
        }
    }
}

/// The bounds of the mapping that `address` is in.
fn mapping_of(address: usize) -> Option<(usize, usize)> {
    let bounds = MAPPED.iter().map(|mapping| {
        (mapping.start.load(Ordering::Relaxed), mapping.end.load(Ordering::Acquire))
    });
    bounds.into_iter().find(|&(start, end)| (start..end).contains(&address))
}

extern "C" fn on_fault(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel hands over what it says of the signal, for as long as this runs.
    let info = unsafe { &*info };
    // SAFETY: the kernel always says the address of this signal.
    let address = unsafe { info.si_addr() } as usize;
    // What else may be wrong with memory, such as broken hardware, is not ours to cover up.
    let lost = mapping_of(address).filter(|_| info.si_code == libc::BUS_ADRERR);
    // The page, or else, where pages are larger than usual, all of the mapping.
    let page = address & !(PAGE - 1);
    let replaced = lost
        .is_some_and(|(start, end)| replace(page, PAGE) || replace(start, end.wrapping_sub(start)));
    if replaced {
        LOSSES.fetch_add(1, Ordering::Relaxed);
    } else {
        // The access happens again when this returns, and ends the process as it always did.
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: there is no handler to be wrong.
        let _dies = unsafe { sigaction(Signal::SIGBUS, &default) };
    }
}

/// The smallest page of the hosts that are supported.
const PAGE: usize = 4096;

fn replace(start: usize, len: usize) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    let at = std::ptr::without_provenance_mut(start);
    // SAFETY: the range is within a mapping that is watched and in use: nothing else is there, and
    // nobody relies on what it holds, which the front-end may change at any time.
    let mapped = unsafe { libc::mmap(at, len, protection, flags, -1, 0) };
    mapped == at
}

#[cfg(test)]
#[path = "lost_memory_test.rs"]
mod tests;
