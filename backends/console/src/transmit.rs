//! What the guest prints: from its buffers to whoever reads it, at their pace.

use std::sync::Arc;

use atoll_backend::{Chain, Vring, VringError, Wait, Worker};

use crate::carrier::Carrier;
use crate::line::{Line, Served};
use crate::part::{LastPart, Part, Resets};

/// How much is taken before it is delivered.
const BATCH: usize = 64 * 1024;

/// The worker of the transmit queue.
pub(crate) struct Transmit {
    line: Arc<Line>,
    _served: Served,
    /// The chain that was given back half printed, which is not to be printed twice: nor by the next
    /// worker, if its ring goes on.
    part: Option<Part>,
    last_part: Arc<LastPart>,
    resets: Resets,
    /// Chains that are printed and not completed yet; empty between two calls.
    done: Vec<(Chain, u32)>,
}

/// How far the chains that were there have got.
enum Taken {
    /// Some, and there may be more.
    Some,
    /// All.
    All,
    /// Up to one that is there still, in part.
    Part,
}

impl Transmit {
    pub(crate) fn new(line: Arc<Line>, last_part: Arc<LastPart>) -> Self {
        let served = Served::new(&line, |line| &line.transmitting);
        let (part, resets) = last_part.take();
        Self { line, _served: served, part, last_part, resets, done: Vec::new() }
    }

    /// Takes what the guest printed, up to a batch of it. The driver sees that in one step: to tell it of
    /// each chain costs more than to copy what is in one.
    fn take_batch(
        &mut self,
        vring: &mut Vring,
        carrier: &mut Carrier,
    ) -> Result<Taken, VringError> {
        // If the ring is broken, what came before that is printed all the same.
        let taken = self.take(vring, carrier);
        if !self.done.is_empty() {
            vring.complete_together(self.done.drain(..))?;
        }
        taken
    }

    fn take(&mut self, vring: &mut Vring, carrier: &mut Carrier) -> Result<Taken, VringError> {
        let mut taken = 0_usize;
        while taken < BATCH {
            let Some(chain) = vring.next()? else {
                // A ring that went on would have the chain still.
                self.part = None;
                return Ok(Taken::All);
            };
            let printed = self.part.take().map_or(0, |part| part.printed_of(&chain));
            if let Ok(mut bytes) = chain.reader() {
                bytes.skip(printed);
                let count = carrier.print(&mut bytes);
                taken = taken.saturating_add(count);
                if !bytes.is_empty() {
                    self.part = Some(Part::of(&chain, printed.saturating_add(count)));
                    vring.give_back(chain)?;
                    return Ok(Taken::Part);
                }
            } else {
                tracing::debug!("a broken chain");
            }
            self.done.push((chain, 0));
        }
        Ok(Taken::Some)
    }
}

impl Drop for Transmit {
    fn drop(&mut self) {
        self.last_part.put(self.part, self.resets);
    }
}

impl Worker for Transmit {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        let line = Arc::clone(&self.line);
        let mut carrier = line.carrier();
        let wait = loop {
            let taken = self.take_batch(vring, &mut carrier)?;
            // While this is delivered the driver may print more.
            vring.call_if_wanted()?;
            carrier.settle();
            match taken {
                Taken::Some => {}
                Taken::All => break Wait::kick(),
                Taken::Part if carrier.room() > 0 => break Wait::nothing(),
                // For the slowest reader, as long as there is patience with it.
                Taken::Part => {
                    break Wait::no_kick().within(carrier.patience().unwrap_or_default());
                }
            }
        };
        Ok(wait.on_lasting(self.line.watches.full.file()))
    }
}
