//! The rings of a device: started when they may run, stopped and started around every change, so
//! that whoever serves a ring never sees one. The messages that bring the changes are the
//! session's.

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::device::{Device, DeviceError};
use crate::error::Because;
use crate::event;
use crate::inflight::InflightRegion;
use crate::memory::MemoryTable;
use crate::metrics::Metrics;
use crate::queue::{QueueSetup, Runnable};
use crate::ring_thread::{RingThread, Signals, Stops};
use crate::vring::{RingSetup, Vring, VringError};

/// What all rings of a device stand on.
pub(crate) struct Ground {
    pub(crate) device: Arc<dyn Device>,
    /// The features that the driver accepted.
    pub(crate) features: u64,
    pub(crate) memory: MemoryTable,
    pub(crate) inflight: Option<InflightRegion>,
    /// Where what the rings do is counted, if it is.
    pub(crate) metrics: Option<Arc<Metrics>>,
}

/// The ring of a queue does not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the ring at {user:#x} of the front-end is not in the memory that it shares")]
    Unmapped { user: u64 },
    #[error("cannot set up the ring")]
    Ring(#[source] VringError),
    #[error("the device does not open the queue")]
    Device(#[source] DeviceError),
    #[error("cannot start the ring's thread")]
    Thread(#[source] io::Error),
}

/// There is no such queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoQueue;

/// A queue's setup has not changed as the front-end wants.
#[derive(Debug)]
pub(crate) enum ChangeError {
    NoQueue,
    /// The device does not open the queue, which is neither the driver's nor the ring's fault.
    Device(DeviceError),
}

impl From<NoQueue> for ChangeError {
    fn from(NoQueue: NoQueue) -> Self {
        Self::NoQueue
    }
}

/// One queue: what the front-end said of it, and its ring while it runs.
#[derive(Default)]
struct Ring {
    setup: QueueSetup,
    running: Option<RingThread>,
}

/// All queues of a device, and what they stand on.
pub(crate) struct Rings {
    ground: Ground,
    rings: Vec<Ring>,
}

impl Rings {
    pub(crate) fn new(device: Arc<dyn Device>, count: u16, metrics: Option<Arc<Metrics>>) -> Self {
        let memory = MemoryTable::default();
        let ground = Ground { device, features: 0, memory, inflight: None, metrics };
        let rings = std::iter::repeat_with(Ring::default).take(usize::from(count)).collect();
        Self { ground, rings }
    }

    /// Changes a queue's setup. Its ring, if it runs, stops for it and goes on where it was.
    pub(crate) fn change(
        &mut self,
        index: u32,
        change: impl FnOnce(&mut QueueSetup),
    ) -> Result<(), ChangeError> {
        let (index, ring) = find(&mut self.rings, index)?;
        ring.stop(Stops::Leaving);
        change(&mut ring.setup);
        match ring.start(index, &self.ground) {
            Err(StartError::Device(source)) => Err(ChangeError::Device(source)),
            started => {
                complain(index, started);
                Ok(())
            }
        }
    }

    /// Changes what all rings stand on. Those that run stop for it and go on where they were.
    pub(crate) fn change_ground<T>(&mut self, change: impl FnOnce(&mut Ground) -> T) -> T {
        self.stop_all();
        let result = change(&mut self.ground);
        for (index, ring) in (0u16..).zip(&mut self.rings) {
            complain(index, ring.start(index, &self.ground));
        }
        result
    }

    /// Stops a ring until its queue is set up again. Returns the position where it would go on.
    pub(crate) fn stop(&mut self, index: u32, stops: Stops) -> Result<u16, NoQueue> {
        let (_, ring) = find(&mut self.rings, index)?;
        ring.stop(stops);
        Ok(ring.setup.stop())
    }

    /// Enables all queues, of which none runs; they run when the rest of their setup is there.
    pub(crate) fn enable_all(&mut self) {
        for (index, ring) in (0u16..).zip(&mut self.rings) {
            ring.setup.enabled = true;
            complain(index, ring.start(index, &self.ground));
        }
    }

    /// Whether the front-end enabled a queue.
    pub(crate) fn is_enabled(&mut self, index: u32) -> Result<bool, NoQueue> {
        find(&mut self.rings, index).map(|(_, ring)| ring.setup.enabled)
    }

    /// Stops all rings, with what is in flight finished or left in the record of it.
    pub(crate) fn stop_all(&mut self) {
        self.rings.iter_mut().for_each(|ring| ring.stop(Stops::Leaving));
    }

    /// Stops all rings and forgets all that was negotiated but the memory.
    pub(crate) fn reset(&mut self) {
        self.stop_all();
        self.rings.fill_with(Ring::default);
        self.ground.features = 0;
        self.ground.inflight = None;
    }
}

fn find(rings: &mut [Ring], index: u32) -> Result<(u16, &mut Ring), NoQueue> {
    let index = u16::try_from(index).map_err(|_large| NoQueue)?;
    rings.get_mut(usize::from(index)).map(|ring| (index, ring)).ok_or(NoQueue)
}

impl Ring {
    fn stop(&mut self, stops: Stops) {
        if let Some(running) = self.running.take() {
            let stopped = running.stop(stops);
            self.setup.base = stopped.vring.next_avail();
            self.setup.broken = stopped.failed;
        }
    }

    /// Starts the ring if it may run now. What keeps it from that may be the driver's doing, so it
    /// is the ring that breaks, not the session.
    fn start(&mut self, index: u16, ground: &Ground) -> Result<(), StartError> {
        if self.running.is_some() {
            return Ok(());
        }
        let Some(runnable) = self.setup.runnable() else { return Ok(()) };
        match try_start(index, &self.setup, &runnable, ground) {
            Ok(running) => self.running = Some(running),
            Err(error) => {
                self.setup.broken = true;
                // The front-end is told that the device does not take it; the ring is all right.
                if !matches!(error, StartError::Device(_)) {
                    self.setup.error.iter().for_each(|error| event::signal(error));
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

fn complain(index: u16, started: Result<(), StartError>) {
    if let Err(error) = started {
        tracing::error!("vring {index} does not start: {}", Because(&error));
    }
}

fn try_start(
    index: u16,
    setup: &QueueSetup,
    runnable: &Runnable<'_>,
    ground: &Ground,
) -> Result<RingThread, StartError> {
    let Ground { device, features, memory, inflight, metrics } = ground;
    let &Runnable { size, addresses, kick } = runnable;
    let accepted = |bit: u32| features & 1 << bit != 0;
    let translate = |user| memory.translate(user).ok_or(StartError::Unmapped { user });
    let record = inflight.as_ref().map(|region| region.queue(index, size)).transpose();
    let ring = RingSetup {
        index,
        size,
        descriptors: translate(addresses.descriptors)?,
        avail: translate(addresses.avail)?,
        used: translate(addresses.used)?,
        next_avail: setup.base,
        event_idx: accepted(VIRTIO_RING_F_EVENT_IDX),
        indirect: accepted(VIRTIO_RING_F_INDIRECT_DESC),
        call: setup.call.clone(),
        inflight: record.map_err(|error| StartError::Ring(error.into()))?,
    };
    let mut vring = Vring::new(ring, memory.memory()).map_err(StartError::Ring)?;
    vring.count_in(metrics.clone());
    let worker = device.open_queue(index, *features).map_err(StartError::Device)?;
    let signals = Signals { call: setup.call.clone(), error: setup.error.clone() };
    RingThread::start(vring, worker, Arc::clone(kick), signals).map_err(StartError::Thread)
}
