//! One pair of the guest's queues on its queue of the TAP, which takes part in what the kernel
//! spreads packets over while the pair is in use, and only then. Packets pass elsewhere.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::{Tap, TapError};

/// A pair, shared by its two queues and by who says whether it is in use.
#[derive(Debug)]
pub(crate) struct Pair {
    tap: Tap,
    /// The first pair's, which is always in use: it takes what this one may not send any more.
    first: Tap,
    is_first: bool,
    wanted: Mutex<Wanted>,
    attached: AtomicBool,
    /// Readable after `attached` has changed, until it is looked at; `changed` is set after it.
    change: EventFd,
    changed: AtomicBool,
}

#[derive(Debug)]
struct Wanted {
    /// Somebody serves its receive queue.
    served: bool,
    /// The driver wants it (VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET).
    allowed: bool,
}

/// Says that a pair's receive queue is served, as long as it lives.
#[derive(Debug)]
pub(crate) struct Served(Arc<Pair>);

impl Pair {
    /// A pair for each queue of one TAP; all but the first are out of use.
    pub(crate) fn of(taps: Vec<Tap>) -> Result<Vec<Arc<Self>>, TapError> {
        let Some(first) = taps.first().cloned() else { return Ok(Vec::new()) };
        let pairs = taps.into_iter().enumerate().map(|(index, tap)| {
            let is_first = index == 0;
            if !is_first {
                tap.set_queue(false)?;
            }
            let change = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .map_err(|errno| TapError::Event(errno.into()))?;
            let wanted = Mutex::new(Wanted { served: false, allowed: true });
            let attached = AtomicBool::new(is_first);
            let changed = AtomicBool::new(false);
            let first = first.clone();
            Ok(Arc::new(Self { tap, first, is_first, wanted, attached, change, changed }))
        });
        pairs.collect()
    }

    /// Puts the pair in use for as long as what is returned lives.
    pub(crate) fn serve(self: &Arc<Self>) -> Result<Served, TapError> {
        self.want(|wanted| wanted.served = true)?;
        Ok(Served(Arc::clone(self)))
    }

    /// Whether the driver wants it.
    pub(crate) fn allow(&self, allowed: bool) -> Result<(), TapError> {
        self.want(|wanted| wanted.allowed = allowed)
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) -> Result<(), TapError> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut wanted);
        let attach = self.is_first || (wanted.served && wanted.allowed);
        if attach == self.is_attached() {
            return Ok(());
        }
        // Who is told by the kernel that there is no queue finds out here that there is none.
        if !attach {
            self.attached.store(false, Ordering::Release);
        }
        self.tap.set_queue(attach)?;
        self.attached.store(attach, Ordering::Release);
        // It can only fail when its counter is full, and then it is readable.
        let _full = self.change.write(1);
        self.changed.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the TAP's queue is in use.
    pub(crate) fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire)
    }

    /// Whether the TAP itself is gone, when its queue is not there.
    pub(crate) fn is_gone(&self) -> bool {
        let _unchanged = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_attached() && self.tap.is_gone()
    }

    /// The queue itself.
    pub(crate) fn tap(&self) -> &Tap {
        &self.tap
    }

    /// Where packets of the guest go.
    pub(crate) fn out(&self) -> &Tap {
        if self.is_attached() { &self.tap } else { &self.first }
    }

    /// Readable when the queue's use has changed since it was last looked at; of the first, which is
    /// always in use, nothing is.
    pub(crate) fn change(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_first).then(|| self.change.as_fd())
    }

    /// Looks at it.
    pub(crate) fn take_change(&self) {
        if self.changed.load(Ordering::Acquire) {
            self.changed.store(false, Ordering::Release);
            // Somebody else's look at it would do as well.
            let _seen = self.change.read();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Err(error) = self.0.want(|wanted| wanted.served = false) {
            // A TAP that is gone has no queues to leave.
            tracing::debug!(error = &error as &dyn std::error::Error, "a queue stays in use");
        }
    }
}
