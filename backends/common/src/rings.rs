//! The rings of a device: started when they may run, stopped and started around every change, so
//! that whoever serves a ring never sees one. The messages that bring the changes are the
//! session's.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::Arc;

use tap::TapFallible;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::device::{Device, DeviceError};
use crate::error::Because;
use crate::event;
use crate::inflight::InflightRegion;
use crate::memory::MemoryTable;
use crate::metrics::Metrics;
use crate::queue::{QueueSetup, Runnable};
use crate::ring_thread::{NewRing, RingThread, Signals, Stopped, Stops};
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
    running: bool,
}

/// The threads that have rings.
#[derive(Default)]
struct Threads {
    /// By the first queue of those that the device has one serve.
    threads: BTreeMap<u16, RingThread>,
    /// By the index of the ring that has them signalled.
    signals: BTreeMap<u16, Signals>,
}

/// All queues of a device, and what they stand on.
pub(crate) struct Rings {
    ground: Ground,
    rings: Vec<Ring>,
    threads: Threads,
}

impl Rings {
    pub(crate) fn new(device: Arc<dyn Device>, count: u16, metrics: Option<Arc<Metrics>>) -> Self {
        let memory = MemoryTable::default();
        let ground = Ground { device, features: 0, memory, inflight: None, metrics };
        let rings = std::iter::repeat_with(Ring::default).take(usize::from(count)).collect();
        Self { ground, rings, threads: Threads::default() }
    }

    /// Changes a queue's setup. Its ring, if it runs, stops for it and goes on where it was.
    pub(crate) fn change(
        &mut self,
        index: u32,
        change: impl FnOnce(&mut QueueSetup),
    ) -> Result<(), ChangeError> {
        let (index, ring) = find(&mut self.rings, index)?;
        ring.stop(index, Stops::Leaving, &self.ground, &mut self.threads);
        change(&mut ring.setup);
        match ring.start(index, &self.ground, &mut self.threads) {
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
            complain(index, ring.start(index, &self.ground, &mut self.threads));
        }
        result
    }

    /// Stops a ring until its queue is set up again. Returns the position where it would go on.
    pub(crate) fn stop(&mut self, index: u32, stops: Stops) -> Result<u16, NoQueue> {
        let (index, ring) = find(&mut self.rings, index)?;
        ring.stop(index, stops, &self.ground, &mut self.threads);
        Ok(ring.setup.stop())
    }

    /// Enables all queues, of which none runs; they run when the rest of their setup is there.
    pub(crate) fn enable_all(&mut self) {
        for (index, ring) in (0u16..).zip(&mut self.rings) {
            ring.setup.enabled = true;
            complain(index, ring.start(index, &self.ground, &mut self.threads));
        }
    }

    /// Whether the front-end enabled a queue.
    pub(crate) fn is_enabled(&mut self, index: u32) -> Result<bool, NoQueue> {
        find(&mut self.rings, index).map(|(_, ring)| ring.setup.enabled)
    }

    /// Stops all rings, with what is in flight finished or left in the record of it.
    pub(crate) fn stop_all(&mut self) {
        for (index, ring) in (0u16..).zip(&mut self.rings) {
            ring.stop(index, Stops::Leaving, &self.ground, &mut self.threads);
        }
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
    fn stop(&mut self, index: u16, stops: Stops, ground: &Ground, threads: &mut Threads) {
        if std::mem::take(&mut self.running) {
            let stopped = threads.stop(first_with(index, ground), index, stops);
            self.setup.broken = stopped.as_ref().is_none_or(|stopped| stopped.failed);
            self.setup.base = stopped.map_or(self.setup.base, |stopped| stopped.vring.next_avail());
        }
    }

    /// Starts the ring if it may run now. What keeps it from that may be the driver's doing, so it
    /// is the ring that breaks, not the session.
    fn start(
        &mut self,
        index: u16,
        ground: &Ground,
        threads: &mut Threads,
    ) -> Result<(), StartError> {
        if self.running {
            return Ok(());
        }
        let Some(runnable) = self.setup.runnable() else { return Ok(()) };
        let started = open(index, &self.setup, &runnable, ground).and_then(|ring| {
            threads.start(first_with(index, ground), ring, ground).map_err(StartError::Thread)
        });
        if let Err(error) = started {
            self.setup.broken = true;
            // The front-end is told that the device does not take it; the ring is all right.
            if !matches!(error, StartError::Device(_)) {
                let signalled = self.setup.error.iter().try_for_each(event::signal_and_go_on);
                let _unheard = signalled
                    .tap_err(|error| tracing::error!("vring {index}: cannot signal: {error}"));
            }
            return Err(error);
        }
        self.running = true;
        self.setup.call_due = false;
        Ok(())
    }
}

/// The first queue of those that one thread serves with the queue `index`.
fn first_with(index: u16, ground: &Ground) -> u16 {
    if ground.device.pairs_queues() { index & !1 } else { index }
}

/// What a thread that serves `first` is called. The kernel keeps 15 bytes of it, as many as the longest has.
fn thread_name(first: u16, ground: &Ground) -> String {
    let second = first.saturating_add(1);
    let alone = !ground.device.pairs_queues() || second >= ground.device.identity().queues;
    if alone { format!("vring{first}") } else { format!("vrings{first}-{second}") }
}

impl Threads {
    fn start(&mut self, first: u16, ring: NewRing, ground: &Ground) -> io::Result<()> {
        let (index, signals) = (ring.vring.index(), ring.signals.clone());
        match self.threads.entry(first) {
            Entry::Occupied(mut thread) => thread.get_mut().add(ring),
            Entry::Vacant(place) => {
                place.insert(RingThread::start(thread_name(first, ground), ring)?);
            }
        }
        self.signals.insert(index, signals);
        Ok(())
    }

    fn stop(&mut self, first: u16, index: u16, stops: Stops) -> Option<Stopped> {
        let thread = self.threads.get_mut(&first)?;
        let signals = &self.signals;
        let stopped = thread.stop(index, stops, || signals.values().for_each(Signals::make_room));
        self.signals.remove(&index);
        if thread.is_idle() {
            self.threads.remove(&first).into_iter().for_each(RingThread::end);
        }
        stopped
    }
}

fn complain(index: u16, started: Result<(), StartError>) {
    if let Err(error) = started {
        tracing::error!("vring {index} does not start: {}", Because(&error));
    }
}

/// The ring of a queue, and who is to serve it.
fn open(
    index: u16,
    setup: &QueueSetup,
    runnable: &Runnable<'_>,
    ground: &Ground,
) -> Result<NewRing, StartError> {
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
        call_due: setup.call_due,
        event_idx: accepted(VIRTIO_RING_F_EVENT_IDX),
        indirect: accepted(VIRTIO_RING_F_INDIRECT_DESC),
        call: setup.call.clone(),
        inflight: record.map_err(|error| StartError::Ring(error.into()))?,
    };
    let mut vring = Vring::new(ring, memory.memory()).map_err(StartError::Ring)?;
    vring.count_in(metrics.clone());
    let worker = device.open_queue(index, *features).map_err(StartError::Device)?;
    let signals = Signals { call: setup.call.clone(), error: setup.error.clone() };
    Ok(NewRing { vring, worker, kick: Arc::clone(kick), signals })
}
