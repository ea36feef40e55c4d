//! Does what a block request asks for, and says how it went in its status. It takes as long as it
//! takes; how requests run at once is the engines'.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use atoll_backend::{Chain, Reader};
use tap::{TapFallible, TapOptional};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK};

use crate::cache::Caching;
use crate::complaints::Complaints;
use crate::image::{Claim, Image};
use crate::mark::Mark;
use crate::ranges::{Range, Ranges};
use crate::request::{Action, BadRequest, Limits, Request, Subject};
use crate::storage::Storage;

/// The length of the answer to a request for the serial number (virtio 1.3 §5.2.6).
pub(crate) const ID_LEN: usize = 20;

/// The disk as one queue's requests find it.
pub(crate) struct Disk {
    pub(crate) image: Arc<Image>,
    /// Both are given back when the ring has stopped.
    pub(crate) _claim: Claim,
    pub(crate) _mark: Option<Mark>,
    pub(crate) id: [u8; ID_LEN],
    pub(crate) complaints: Mutex<Complaints>,
    pub(crate) caching: Arc<Caching>,
    /// Whether the driver can ask for durability.
    pub(crate) driver_flushes: bool,
    pub(crate) on_enospc: OnEnospc,
}

/// A request that was answered.
pub(crate) struct Answered {
    pub(crate) chain: Chain,
    /// How many bytes of its room are written.
    pub(crate) written: u32,
    /// Whether the answer is an error.
    pub(crate) failed: bool,
    /// There was no space for it, and it is to wait for some: it has no answer yet.
    pub(crate) waits: bool,
}

/// What becomes of a request for which the host has no space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnEnospc {
    /// The guest sees an error.
    #[default]
    Report,
    /// It waits until there is space.
    Pause,
}

impl Disk {
    pub(crate) fn limits(&self) -> Limits {
        let image = &self.image;
        Limits {
            len: image.len(),
            read_only: image.is_read_only(),
            block: image.geometry().logical,
        }
    }

    /// Does what the chain asks for.
    pub(crate) fn answer(&self, chain: Chain) -> Answered {
        let acted = Request::parse(&chain, self.limits()).map(|Request { action }| {
            let subject = action.subject();
            (subject, self.act(action))
        });
        match acted {
            Ok((subject, result)) => self.finish(chain, subject, result),
            Err(bad) => Self::refuse(chain, bad),
        }
    }

    /// Says that the request is none.
    pub(crate) fn refuse(chain: Chain, bad: BadRequest) -> Answered {
        // The driver's doing, and drivers must not be able to fill the log.
        tracing::debug!("request refused: {bad}");
        write_status(chain, bad.status())
    }

    /// Says how the request went.
    pub(crate) fn finish(
        &self,
        chain: Chain,
        subject: Subject,
        result: io::Result<()>,
    ) -> Answered {
        if let Err(error) = &result
            && self.on_enospc == OnEnospc::Pause
            && matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            self.complain(subject, error, "waits");
            return Answered { chain, written: 0, failed: false, waits: true };
        }
        let status = match result.tap_err(|error| self.complain(subject, error, "failed")) {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(_logged) => VIRTIO_BLK_S_IOERR,
        };
        write_status(chain, status as u8)
    }

    /// Whether a write that is done has to be on stable storage (virtio 1.3 §5.2.6.2).
    pub(crate) fn writes_durably(&self) -> bool {
        self.caching.writes_durably(self.driver_flushes)
    }

    /// Whether a flush has an effect.
    pub(crate) fn flushes(&self) -> bool {
        self.caching.flushes()
    }

    /// Acts, and returns when it is done.
    pub(crate) fn act(&self, action: Action<'_>) -> io::Result<()> {
        match action {
            Action::Read { offset, mut data } => self.image.storage().read_at(offset, &mut data),
            Action::Write { offset, mut data } => self.write(offset, &mut data),
            Action::Flush if !self.flushes() => Ok(()),
            Action::Flush => self.image.storage().flush(),
            Action::Discard { ranges } => {
                self.change(&ranges, |storage, range| storage.discard(range))
            }
            Action::WriteZeroes { ranges } => {
                self.change(&ranges, |storage, range| storage.write_zeroes(range))
            }
            Action::GetId { mut data } => data.write(&self.id).map(drop),
        }
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

    fn settle(&self) -> io::Result<()> {
        if self.writes_durably() { self.image.storage().flush() } else { Ok(()) }
    }

    fn complain(&self, subject: Subject, error: &io::Error, does: &str) {
        let path = self.image.path().display();
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.make(Instant::now()).tap_some(|unsaid| match unsaid {
            0 => tracing::warn!("{subject} {does} on {path}: {error}"),
            _ => tracing::warn!("{subject} {does} on {path}, as {unsaid} did before: {error}"),
        });
    }
}

/// Says that nothing more is done for the request.
pub(crate) fn give_up(chain: Chain) -> Answered {
    write_status(chain, VIRTIO_BLK_S_IOERR as u8)
}

/// Writes the status, the chain's last byte. The bytes that are written count from the first on
/// without a gap (virtio 1.3 §2.7.8.2): a failed read has none to show.
fn write_status(chain: Chain, code: u8) -> Answered {
    let answered = chain.last_byte().is_some_and(|mut status| status.write_obj(&code));
    let failed = u32::from(code) != VIRTIO_BLK_S_OK;
    let complete = !failed || chain.writable_bytes() == 1;
    let written = if answered && complete { chain.writable_bytes() } else { 0 };
    Answered { chain, written, failed, waits: false }
}
