//! From the guest to the TAP: one packet a chain (virtio 1.3 §5.1.6.2), written straight out of
//! the guest's buffers behind a header of our own.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

use atoll_backend::{Chain, ChainFault, Reader, Vring, VringError, Wait, Worker};
use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::Tap;
use crate::header::{HEADER, HeaderFault, TransmitHeader};
use crate::offload::Features;

/// A packet does not leave.
#[derive(Debug, thiserror::Error)]
enum Unsent {
    #[error("a broken chain")]
    Chain(#[from] ChainFault),
    #[error("a chain too short for a header")]
    NoHeader,
    #[error(transparent)]
    Header(#[from] HeaderFault),
    #[error("TAP {name} is down; `ip link set {name} up` lets them pass")]
    Down { name: String },
    #[error("the kernel refuses it")]
    Refused(#[source] Errno),
    /// The TAP's queue is full; it goes later.
    #[error("the TAP takes no more")]
    Later,
    /// The interface was deleted.
    #[error("TAP {name} is gone")]
    TapGone { name: String },
}

/// The worker of a transmit queue.
pub(crate) struct Transmit {
    tap: Tap,
    features: Features,
    dropped: u64,
}

impl Transmit {
    pub(crate) fn new(tap: Tap, features: Features) -> Self {
        Self { tap, features, dropped: 0 }
    }

    fn send(&self, chain: &Chain) -> Result<(), Unsent> {
        let mut reader = chain.reader()?;
        let mut bytes = [0; HEADER];
        if reader.copy_to(&mut bytes) != HEADER {
            return Err(Unsent::NoHeader);
        }
        // From here on the guest may change its copy as it likes.
        let header = TransmitHeader::parse(bytes, reader.len(), self.features)?;
        self.write(&mut reader, &header.to_bytes())
    }

    fn write(&self, frame: &mut Reader<'_>, header: &[u8]) -> Result<(), Unsent> {
        let written = frame.write_packet(self.tap.as_fd(), header);
        written.map(drop).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => Unsent::Later,
            _ => match errno(&error) {
                Errno::EBADFD => Unsent::TapGone { name: self.tap.name().to_owned() },
                Errno::EIO => Unsent::Down { name: self.tap.name().to_owned() },
                errno => Unsent::Refused(errno),
            },
        })
    }

    /// As on a wire, the driver learns nothing of it. The log does, the first time.
    fn drop_packet(&mut self, reason: &Unsent) {
        if self.dropped == 0 {
            tracing::warn!(
                error = reason as &dyn std::error::Error,
                "dropping packets from the guest"
            );
        }
        self.dropped = self.dropped.saturating_add(1);
    }
}

impl Worker for Transmit {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        while let Some(chain) = vring.next()? {
            match self.send(&chain) {
                Ok(()) => {}
                Err(Unsent::Later) => {
                    vring.give_back(chain)?;
                    return Ok(Wait::no_kick().on(self.tap.as_fd(), PollFlags::POLLOUT));
                }
                Err(gone @ Unsent::TapGone { .. }) => {
                    vring.give_back(chain)?;
                    return Err(VringError::Device(gone.into()));
                }
                Err(reason) => self.drop_packet(&reason),
            }
            vring.complete(chain, 0)?;
        }
        Ok(Wait::kick())
    }

    fn drain(&mut self, _vring: &mut Vring) -> Result<(), VringError> {
        if self.dropped > 0 {
            tracing::info!("{} packets from the guest were dropped", self.dropped);
        }
        Ok(())
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}
