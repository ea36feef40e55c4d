//! Serves one queue of a block device: each request parsed, acted on, answered and completed
//! before the next is looked at.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use atoll_backend::{Chain, Limiter, Reader, Vring, VringError, Wait, Worker};
use tap::{TapFallible, TapOptional};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK};

use crate::complaints::Complaints;
use crate::image::{Claim, Image};
use crate::ranges::{Range, Ranges};
use crate::request::{Action, Limits, Request, Subject};
use crate::storage::Storage;

/// The length of the answer to a request for the serial number (virtio 1.3 §5.2.6).
pub(crate) const ID_LEN: usize = 20;

/// What a request has besides its data: a header and a status (virtio 1.3 §5.2.6).
const FRAME: u64 = 16 + 1;

/// What serves one queue.
pub(crate) struct BlockQueue {
    pub(crate) image: Arc<Image>,
    /// Given back when the ring has stopped.
    pub(crate) _claim: Claim,
    pub(crate) id: [u8; ID_LEN],
    pub(crate) complaints: Complaints,
    /// Shared by all queues of the disk.
    pub(crate) limiter: Arc<Limiter>,
    /// The driver can't ask for durability, so that it is due with each write.
    pub(crate) flush_writes: bool,
}

impl Worker for BlockQueue {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        while let Some(chain) = vring.next()? {
            if let Err(wait) = self.admit(&chain) {
                vring.count_throttled();
                vring.give_back(chain)?;
                return Ok(Wait::no_kick().within(wait));
            }
            let written = self.answer(&chain, vring);
            vring.complete(chain, written)?;
            vring.call_if_wanted()?;
        }
        Ok(Wait::kick())
    }
}

impl BlockQueue {
    /// Whether the limits let the chain through now; else how long to wait. What a process before
    /// this one left in flight counts, but does not wait: the ring may be about to stop.
    fn admit(&self, chain: &Chain) -> Result<(), Duration> {
        let bytes = chain.readable_bytes().saturating_add(chain.writable_bytes().into());
        let bytes = bytes.saturating_sub(FRAME);
        if chain.is_resubmitted() {
            self.limiter.charge(bytes);
            return Ok(());
        }
        self.limiter.take(bytes)
    }

    /// Does what the chain asks for, and says how it went in the status. Returns how many bytes of
    /// its room are written, from the first on without a gap (virtio 1.3 §2.7.8.2): the status is
    /// the last of them, so that a failed read has none to show.
    fn answer(&mut self, chain: &Chain, vring: &Vring) -> u32 {
        let limits = Limits { len: self.image.len(), read_only: self.image.is_read_only() };
        let (status, code) = match Request::parse(chain, limits) {
            Ok(Request { action, status }) => (Some(status), self.act(action)),
            Err(bad) => {
                // The driver's doing, and drivers must not be able to fill the log.
                tracing::debug!("request refused: {bad}");
                (chain.last_byte(), bad.status())
            }
        };
        if u32::from(code) != VIRTIO_BLK_S_OK {
            vring.count_error();
        }
        let answered = status.is_some_and(|mut status| status.write_obj(&code));
        let complete = u32::from(code) == VIRTIO_BLK_S_OK || chain.writable_bytes() == 1;
        if answered && complete { chain.writable_bytes() } else { 0 }
    }

    /// Acts, and returns the request's status.
    fn act(&mut self, action: Action<'_>) -> u8 {
        let subject = action.subject();
        let result = match action {
            Action::Read { offset, mut data } => self.image.storage().read_at(offset, &mut data),
            Action::Write { offset, mut data } => self.write(offset, &mut data),
            Action::Flush => self.image.storage().flush(),
            Action::Discard { ranges } => {
                self.change(&ranges, |storage, range| storage.discard(range))
            }
            Action::WriteZeroes { ranges } => {
                self.change(&ranges, |storage, range| storage.write_zeroes(range))
            }
            Action::GetId { mut data } => data.write(&self.id).map(drop),
        };
        let status = match result.tap_err(|error| self.complain(subject, error)) {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(_logged) => VIRTIO_BLK_S_IOERR,
        };
        status as u8
    }

    fn write(&self, offset: u64, data: &mut Reader<'_>) -> io::Result<()> {
        self.image.storage().write_at(offset, data)?;
        self.settle()
    }

    fn change(
        &self,
        ranges: &Ranges,
        change: impl Fn(&dyn Storage, Range) -> io::Result<()>,
    ) -> io::Result<()> {
        ranges.iter().try_for_each(|range| change(self.image.storage(), range))?;
        self.settle()
    }

    /// virtio 1.3 §5.2.6.2: without VIRTIO_BLK_F_FLUSH a completed write is a durable one.
    fn settle(&self) -> io::Result<()> {
        if self.flush_writes { self.image.storage().flush() } else { Ok(()) }
    }

    fn complain(&mut self, subject: Subject, error: &io::Error) {
        let path = self.image.path().display();
        self.complaints.make(Instant::now()).tap_some(|unsaid| match unsaid {
            0 => tracing::warn!("{subject} failed on {path}: {error}"),
            _ => tracing::warn!("{subject} failed on {path}, as {unsaid} did before: {error}"),
        });
    }
}
