//! What the guest prints: from its buffers straight into the pipe, at the pace of who reads it.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use atoll_backend::{Chain, Vring, VringError, Wait, Worker};
use nix::poll::PollFlags;

/// The worker of the transmit queue.
pub(crate) struct Transmit {
    output: Arc<OwnedFd>,
    /// How much of the next chain is printed already. It outlives the worker, so that a chain
    /// that was given back half printed is not printed twice.
    printed: Arc<AtomicUsize>,
}

impl Transmit {
    pub(crate) fn new(output: Arc<OwnedFd>, printed: Arc<AtomicUsize>) -> Self {
        Self { output, printed }
    }

    /// Prints what is left of `chain`. False when the pipe is full before its end.
    fn print(&self, chain: &Chain) -> Result<bool, VringError> {
        let Ok(mut bytes) = chain.reader() else {
            tracing::debug!("a broken chain");
            return Ok(true);
        };
        bytes.skip(self.printed.load(Ordering::Relaxed).min(bytes.len()));
        while !bytes.is_empty() {
            match bytes.write_to(self.output.as_fd()) {
                Ok(count) => self.printed.fetch_add(count, Ordering::Relaxed),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(VringError::Device(error.into())),
            };
        }
        Ok(true)
    }
}

impl Worker for Transmit {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        while let Some(chain) = vring.next()? {
            if !self.print(&chain)? {
                vring.give_back(chain)?;
                return Ok(Wait::no_kick().on(self.output.as_fd(), PollFlags::POLLOUT));
            }
            self.printed.store(0, Ordering::Relaxed);
            vring.complete(chain, 0)?;
        }
        Ok(Wait::kick())
    }
}
