//! Which call event raises which MSI-X vector.
//!
//! A source's event is attached to the GSI of its vector exactly while that vector may fire. While
//! it is masked the event is detached and keeps what is signalled, so the pending bit is the event
//! itself (PCI 3.0 §6.8.2.2), and attaching it again delivers what waited. Nobody injects.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::sync::Arc;

use tap::TapFallible;
use tracing::warn;

use super::transport::Source;
use crate::irq::{Event, IrqError, Msi, MsiRoutes};
use crate::pci::Msix;

struct CallSource {
    call: Arc<Event>,
    vector: Option<u16>,
    attached: bool,
}

struct Vector {
    gsi: u32,
    /// The message that the GSI is known to deliver.
    routed: Option<Msi>,
}

/// The interrupts of one function.
pub(super) struct Vectors {
    id: String,
    routes: Arc<dyn MsiRoutes>,
    msix: Msix,
    vectors: Vec<Vector>,
    /// One per queue, then the configuration change.
    sources: Vec<CallSource>,
    /// A guest can ask for messages that KVM refuses as often as it likes; said once.
    refusal_told: bool,
}

impl Vectors {
    /// A vector for each of `calls`, which are the queues' in order and then the configuration
    /// change's. All are masked and nothing is assigned.
    pub(super) fn new(
        id: &str,
        routes: Arc<dyn MsiRoutes>,
        calls: impl IntoIterator<Item = Arc<Event>>,
    ) -> Result<Self, IrqError> {
        let sources: Vec<_> = calls
            .into_iter()
            .map(|call| CallSource { call, vector: None, attached: false })
            .collect();
        let mut vectors = Self {
            id: id.to_owned(),
            routes,
            msix: Msix::new(u16::try_from(sources.len()).unwrap_or(u16::MAX)),
            vectors: Vec::with_capacity(sources.len()),
            sources,
            refusal_told: false,
        };
        // On failure the value is dropped, which frees what was taken so far.
        for _ in 0..vectors.msix.vectors() {
            let gsi = vectors.routes.allocate()?;
            vectors.vectors.push(Vector { gsi, routed: None });
        }
        Ok(vectors)
    }

    /// How many vectors there are.
    pub(super) fn count(&self) -> u16 {
        self.msix.vectors()
    }

    /// Message control was written.
    pub(super) fn set_control(&mut self, control: u16) {
        self.msix.set_control(control);
        self.sync(|_| true);
    }

    /// Reads the vector table.
    pub(super) fn read_table(&self, offset: u64, data: &mut [u8]) {
        self.msix.read_table(offset, data);
    }

    /// Writes the vector table.
    pub(super) fn write_table(&mut self, offset: u64, data: &[u8]) {
        if let Some(vector) = self.msix.write_table(offset, data) {
            self.sync(|source| source.vector == Some(vector));
        }
    }

    /// Reads the pending bits, one per vector.
    pub(super) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        for source in &self.sources {
            let Some(vector) = source.vector else { continue };
            let Some(at) = u64::from(vector / 8).checked_sub(offset) else { continue };
            if let Some(byte) = usize::try_from(at).ok().and_then(|at| data.get_mut(at))
                && !source.attached
                && source.call.is_signalled()
            {
                *byte |= 1 << (vector % 8);
            }
        }
    }

    /// Lets `source` raise another vector, or none.
    pub(super) fn assign(&mut self, source: Source, vector: Option<u16>) {
        let config = self.sources.len().saturating_sub(1);
        let index = match source {
            Source::Config => config,
            Source::Queue(index) => usize::from(index),
        };
        let Some(source) = self.sources.get_mut(index) else { return };
        if source.vector == vector {
            return;
        }
        detach(&*self.routes, &self.vectors, source);
        source.vector = vector;
        self.sync(|source| source.vector == vector);
    }

    /// No source raises anything any more, and what was signalled is forgotten.
    pub(super) fn unassign_all(&mut self) {
        for source in &mut self.sources {
            detach(&*self.routes, &self.vectors, source);
            source.vector = None;
        }
    }

    /// Brings sources in line with what the registers say.
    fn sync(&mut self, concerned: impl Fn(&CallSource) -> bool) {
        for source in self.sources.iter_mut().filter(|source| concerned(source)) {
            let Some(number) = source.vector else { continue };
            let Some(vector) = self.vectors.get_mut(usize::from(number)) else { continue };
            let Some(msi) = self.msix.live(number) else {
                detach(&*self.routes, &self.vectors, source);
                continue;
            };
            let connected = connect(&*self.routes, vector, msi, source);
            if let Err(error) = connected
                && !self.refusal_told
            {
                self.refusal_told = true;
                warn!(device = self.id, vector = number, %error, "the guest loses an interrupt");
            }
        }
    }
}

fn connect(
    routes: &dyn MsiRoutes,
    vector: &mut Vector,
    msi: Msi,
    source: &mut CallSource,
) -> Result<(), IrqError> {
    if vector.routed != Some(msi) {
        vector.routed = None;
        routes.set_msi(vector.gsi, msi)?;
        vector.routed = Some(msi);
    }
    if !source.attached {
        routes.attach(vector.gsi, &source.call)?;
        source.attached = true;
    }
    Ok(())
}

fn detach(routes: &dyn MsiRoutes, vectors: &[Vector], source: &mut CallSource) {
    let vector = source.vector.and_then(|vector| vectors.get(usize::from(vector)));
    if let Some(vector) = vector
        && std::mem::take(&mut source.attached)
    {
        let _ = routes
            .detach(vector.gsi, &source.call)
            .tap_err(|error| warn!(gsi = vector.gsi, %error, "an interrupt stays connected"));
    }
}

impl Drop for Vectors {
    fn drop(&mut self) {
        self.unassign_all();
        for vector in &self.vectors {
            self.routes.free(vector.gsi);
        }
    }
}

#[cfg(test)]
#[path = "vectors_test.rs"]
mod tests;
