//! Keys for the guest: from the outlet into the buffers that the driver made available.

use std::sync::Arc;
use std::time::Duration;

use atoll_backend::{Vring, VringError, Wait, Worker};
use nix::poll::PollFlags;

use crate::line::{Line, Served};
use crate::ports::Gate;

/// How long the driver may take to make several buffers available before one is enough.
const LATEST: Duration = Duration::from_millis(10);

/// The worker of the receive queue.
pub(crate) struct Receive {
    line: Arc<Line>,
    _served: Served,
    /// Of a port that a program in the guest opens and closes: Linux drops what comes while it is
    /// closed.
    gate: Option<Gate>,
    /// How many buffers the driver had available at most.
    buffers: u16,
}

impl Receive {
    pub(crate) fn new(line: Arc<Line>, gate: Option<Gate>) -> Self {
        let served = Served::new(&line, |line| &line.receiving);
        Self { line, _served: served, gate, buffers: 0 }
    }
}

impl Worker for Receive {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        let mut carrier = self.line.carrier();
        carrier.read_keys();
        let mut filled = 0_u16;
        let mut wait = loop {
            // No buffer: the keys wait here, and behind them whoever types more.
            let Some(chain) = vring.next()? else {
                self.buffers = self.buffers.max(filled);
                if filled == 0 {
                    break Wait::kick();
                }
                // All are full and the driver's. It has enough to do until half of them are free.
                break Wait::kick().ahead(self.buffers.saturating_sub(1) / 2).within(LATEST);
            };
            let Some(mut room) = chain.writer().ok().filter(|room| !room.is_empty()) else {
                // Broken, or of no use: the driver gets it back unused.
                vring.complete(chain, 0)?;
                continue;
            };
            if let Some(opens) = self.gate.as_ref().and_then(Gate::closed) {
                vring.give_back(chain)?;
                break Wait::no_kick().on(opens, PollFlags::POLLIN);
            }
            if !carrier.has_keys() {
                // While more is read the driver may look at what it has.
                vring.call_if_wanted()?;
            }
            match carrier.pass_keys(&mut room) {
                0 => {
                    vring.give_back(chain)?;
                    break Wait::no_kick();
                }
                // A chain describes less than 4 GiB.
                count => vring.complete(chain, count as u32)?,
            }
            filled = filled.saturating_add(1);
        };
        carrier.settle();
        if carrier.has_room_for_keys() {
            wait = wait.on_lasting(self.line.watches.input.file());
        }
        Ok(wait)
    }
}
