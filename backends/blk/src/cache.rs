//! What may keep what a guest wrote before it is on stable storage: the modes, with QEMU's names
//! and meanings, and the driver's own switch. It does no I/O.

use std::sync::atomic::{AtomicBool, Ordering};

/// Who caches, and what a flush means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Cache {
    /// Past the host's page cache; a flush makes what the disk caches stable.
    None,
    /// The host's page cache; a flush makes what is there stable.
    #[default]
    Writeback,
    /// The host's page cache, for reads; a write that is done is stable.
    Writethrough,
    /// The host's page cache, and flushes are ignored: what was written is lost with the host.
    Unsafe,
}

/// How a disk caches now.
#[derive(Debug)]
pub(crate) struct Caching {
    cache: Cache,
    /// The driver's switch: whether a completed write may still be lost before a flush.
    writeback: AtomicBool,
}

impl Caching {
    pub(crate) fn new(cache: Cache) -> Self {
        let caching = Self { cache, writeback: AtomicBool::new(false) };
        caching.reset();
        caching
    }

    /// As it was before any driver: the switch is as the mode says.
    pub(crate) fn reset(&self) {
        self.set_writeback(self.cache != Cache::Writethrough);
    }

    /// virtio 1.3 §5.2.4: `writeback`.
    pub(crate) fn is_writeback(&self) -> bool {
        self.writeback.load(Ordering::Acquire)
    }

    pub(crate) fn set_writeback(&self, writeback: bool) {
        self.writeback.store(writeback, Ordering::Release);
    }

    /// Whether a flush has an effect.
    pub(crate) fn flushes(&self) -> bool {
        self.cache != Cache::Unsafe
    }

    /// Whether a write that is done has to be stable, for a driver that can flush or can't (virtio
    /// 1.3 §5.2.6.2).
    pub(crate) fn writes_durably(&self, driver_flushes: bool) -> bool {
        self.flushes() && !(driver_flushes && self.is_writeback())
    }
}

#[cfg(test)]
#[path = "cache_test.rs"]
mod tests;
