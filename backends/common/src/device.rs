//! What a device tells the shared code about itself. It says nothing of sockets or messages.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::PollFlags;

use crate::inflight::Kept;
use crate::panel::Panel;
use crate::sandbox::SystemCall;
use crate::vring::{Vring, VringError};

/// An error of a device's own, to be printed by the shared code.
pub type DeviceError = Box<dyn std::error::Error + Send + Sync>;

/// What a device is: fixed for the life of the process.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The name in messages, such as `blk`.
    pub name: &'static str,
    /// The virtio device type (virtio 1.3 §5).
    pub device_type: u32,
    /// The feature bits of the device's own type (bits 0 to 23, and 50 and up). Those of the ring
    /// and of the transport are offered by the shared code.
    pub features: u64,
    /// How many queues there are at most.
    pub queues: u16,
    /// The largest queue size served; a power of two of at most 1024.
    pub max_queue_size: u16,
}

/// The device does not take what the driver wrote to its configuration space.
#[derive(Debug, thiserror::Error)]
#[error("{field} is read-only")]
pub struct ConfigRefused {
    /// The field, or the bytes, written to.
    pub field: &'static str,
}

/// A virtio device: what it is, its configuration space, and who serves each of its queues.
///
/// All methods but [`panel`](Self::panel) and those of the [`Worker`]s it makes are called on the
/// session's thread.
pub trait Device: Send + Sync + 'static {
    /// What the device is.
    fn identity(&self) -> Identity;

    /// The configuration space as it is now. The session answers reads of any offset and length;
    /// what is beyond the end reads as zero.
    fn config(&self) -> Vec<u8>;

    /// Takes what the driver wrote. `offset` and `data` are within [`config`](Self::config).
    ///
    /// # Errors
    /// [`ConfigRefused`] when the field may not be written; the driver's write has no effect.
    fn write_config(&self, offset: usize, data: &[u8]) -> Result<(), ConfigRefused>;

    /// Makes what serves the queue `index`, each time its ring starts. `features` are those that
    /// the driver accepted.
    ///
    /// # Errors
    /// Anything that keeps the queue from being served; the ring then stays stopped and the
    /// front-end is told through the ring's error descriptor.
    fn open_queue(&self, index: u16, features: u64) -> Result<Box<dyn Worker>, DeviceError>;

    /// Whether the queues 2n and 2n + 1 are two directions of one thing, so that one thread serves both:
    /// what one does is often what the other waits for.
    fn pairs_queues(&self) -> bool {
        false
    }

    /// What can be read and turned while it runs. Called on the control socket's thread.
    fn panel(&self) -> Panel<'_> {
        Panel::default()
    }

    /// Takes a place for what the process after this one has to know of the driver's choices, and
    /// finds there what the process before this one left. It comes before the rings start; not
    /// every front-end has one.
    fn keep(&self, _kept: Kept) {}

    /// The front-end left or reset the device. Its rings are about to stop, so that what they hold
    /// can go over to the device without a gap.
    fn reset(&self);

    /// The system calls that the device makes from now on, beyond those that all make. Asked once,
    /// when all that it needs is open and no thread runs but the main one.
    fn system_calls(&self) -> Vec<SystemCall> {
        Vec::new()
    }

    /// Starts the threads that the device has of its own, within the sandbox; none may run before.
    ///
    /// # Errors
    /// Anything that keeps it from being served.
    fn start(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// Serves one queue, on the thread of its ring.
pub trait Worker: Send {
    /// Does all that can be done now, as straight-line code: next → parse → act → finish →
    /// complete, until nothing is left; then says what to wait for. Never blocks for long.
    ///
    /// # Errors
    /// Errors of the ring are handed on. [`VringError::Device`] says that the device itself can't
    /// go on. Either stops this ring and no other.
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError>;

    /// Finishes, or gives back, every chain that is in flight, because the ring stops. Those that
    /// can't be finished now it leaves, where [`Vring::is_leaving`] says that it may.
    ///
    /// # Errors
    /// As for [`serve`](Self::serve).
    fn drain(&mut self, _vring: &mut Vring) -> Result<(), VringError> {
        Ok(())
    }
}

/// What a worker waits for before it can do more. Being stopped always wakes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait<'fd> {
    pub(crate) again: bool,
    pub(crate) kick: bool,
    pub(crate) ahead: u16,
    pub(crate) lasting: Option<&'fd Arc<File>>,
    pub(crate) fds: [Option<(BorrowedFd<'fd>, PollFlags)>; 2],
    pub(crate) timeout: Option<Duration>,
    pub(crate) polling: Duration,
}

impl<'fd> Wait<'fd> {
    /// Waits until the driver makes more chains available than [`Vring::next`] has seen. Until
    /// such a wait, the driver is asked not to kick.
    pub fn kick() -> Self {
        Self { kick: true, ..Self::default() }
    }

    /// Waits for nothing: there is more to do, and the worker has returned so that others get their
    /// turn.
    pub fn nothing() -> Self {
        Self { again: true, ..Self::default() }
    }

    /// Waits until there are `ahead` chains more than one, as far as the driver can be asked for that: for
    /// who can use several at once, and knows that the driver has so many to give. With
    /// [`kick`](Self::kick) only, and [`within`](Self::within) a time, should the driver not have them.
    #[must_use]
    pub fn ahead(mut self, ahead: u16) -> Self {
        self.ahead = ahead;
        self
    }

    /// Waits for what is added with [`on`](Self::on) and [`within`](Self::within) only; chains
    /// that the driver makes available meanwhile stay in the ring.
    pub fn no_kick() -> Self {
        Self::default()
    }

    /// Also waits for `events` on `fd`. At most two descriptors; a third takes the second's place.
    #[must_use]
    pub fn on(mut self, fd: BorrowedFd<'fd>, events: PollFlags) -> Self {
        let [first, second] = &mut self.fds;
        let slot = if first.is_none() { first } else { second };
        *slot = Some((fd, events));
        self
    }

    /// Also waits until `file` is readable, of which the kernel is told once and not for each wait: for
    /// what is waited for again and again. It stays open as long as the ring runs, whatever becomes of
    /// it. One at most, and no other ring's.
    #[must_use]
    pub fn on_lasting(mut self, file: &'fd Arc<File>) -> Self {
        self.lasting = Some(file);
        self
    }

    /// Before it goes to sleep the ring is looked at for at most `limit`, as far as that pays: as
    /// long as chains keep coming so soon. With [`kick`](Self::kick) only.
    #[must_use]
    pub fn polling(mut self, limit: Duration) -> Self {
        self.polling = limit;
        self
    }

    /// Also wakes when `timeout` has passed, or one that was given before.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(self.timeout.map_or(timeout, |before| before.min(timeout)));
        self
    }
}
