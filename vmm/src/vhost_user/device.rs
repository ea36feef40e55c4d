//! A device that is another process, as the VMM and the transport see it.

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tracing::{info, warn};
use vm_memory::GuestMemoryMmap;

use super::error::VhostUserError;
use super::life::Life;
use super::loudness::Loudness;
use super::mailbox::{Command, Mailbox, Outcome};
use super::memory::Table;
use super::offer::Offer;
use super::peer::{self, SocketPeer};
use super::process::{self, Process};
use super::report::{DeviceStatus, Vmm};
use super::session::Session;
use super::status::Record;
use super::thread::DeviceThread;
use super::{DeviceSpec, REPLY_DEADLINE, STOP_DEADLINE};
use crate::irq::Event;
use crate::virtio::{Activation, DeviceEvents, DeviceType, QueuePort, VirtioDevice};

/// A device whose back-end is another process.
///
/// It outlives guest boots: each boot puts a new transport before it.
pub struct RemoteDevice {
    id: String,
    device_type: DeviceType,
    features: u64,
    ports: Arc<[QueuePort]>,
    mailbox: Arc<Mailbox>,
    record: Arc<Record>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl RemoteDevice {
    /// Connects to a back-end, agrees with it on what the guest will be offered, and starts the
    /// device's thread.
    ///
    /// Waits for a back-end that is not there yet, and says so once. All of `memory` will be shared
    /// with it and must be backed by files. `vmm` hears what becomes of the device.
    ///
    /// # Errors
    /// [`VhostUserError::Device`] naming the device and its peer.
    pub fn connect(
        spec: DeviceSpec,
        memory: &GuestMemoryMmap,
        vmm: &Arc<dyn Vmm>,
    ) -> Result<Arc<Self>, VhostUserError> {
        let id = spec.id.clone();
        let device_type = spec.device_type.name();
        let peer = spec.peer.name();
        Self::open(spec, memory, Arc::clone(vmm)).map(Arc::new).map_err(|source| {
            VhostUserError::Device { id, device_type, peer, source: Box::new(source) }
        })
    }

    fn open(
        mut spec: DeviceSpec,
        memory: &GuestMemoryMmap,
        vmm: Arc<dyn Vmm>,
    ) -> Result<Self, VhostUserError> {
        let table = Table::new(memory)?;
        let stream = peer::wait_for(&spec.id, &mut *spec.peer, spec.connect_timeout)?;
        let identity = process::identify(&*spec.peer, &stream);
        let (session, found) = Session::open(&spec.id, stream, spec.device_type)?;
        let offer = Offer::new(&spec, &found)?;
        let DeviceSpec { id, device_type, peer: source, policy, .. } = spec;
        info!("device {id} ({}) {}", device_type.name(), offer.sentence());
        let ports: Arc<[QueuePort]> =
            (0..offer.queues).map(|_| port(offer.queue_size)).collect::<Result<_, _>>()?;
        let config = offer.present(found.config.unwrap_or_default());
        let mailbox = Arc::new(Mailbox::new(event()?, config));
        let features = offer.features;
        let record = Arc::new(Record::new(
            id.clone(),
            device_type,
            policy.to_string(),
            memory.clone(),
            Arc::clone(&ports),
        ));
        {
            let mut notes = record.notes();
            notes.peer = identity.clone();
            notes.protocol = session.protocol;
        }
        let worker = DeviceThread {
            device_type,
            table,
            offer,
            ports: Arc::clone(&ports),
            broken: event()?,
            mailbox: Arc::clone(&mailbox),
            record: Arc::clone(&record),
            vmm,
            policy,
            life: Life::new(),
            source,
            process: Process::of(&identity),
            shunned: None,
            peer: identity,
            session: Some(session),
            connected_at: Some(Instant::now()),
            activation: None,
            inflight: None,
            driver_blamed: false,
            outage: None,
            retry_at: None,
            failures: 0,
            refused: None,
            losses: Loudness::default(),
            returns: Loudness::default(),
            reattaching: None,
        };
        let thread = thread::Builder::new()
            .name(format!("dev-{id}"))
            .spawn(move || worker.run())
            .map_err(|source| VhostUserError::Thread { id: id.clone(), source })?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { id, device_type, features, ports, mailbox, record, thread })
    }

    /// Takes the guest's rings back from the back-end, as for a new boot, and waits until it has
    /// let go of them or is given up.
    pub fn quiesce(&self) {
        // The thread may be in the middle of one exchange, then does this one.
        let patience = REPLY_DEADLINE + STOP_DEADLINE + REPLY_DEADLINE;
        if !self.mailbox.reset_and_wait(patience) {
            warn!("device {}: no reset within {} s", self.id, patience.as_secs());
        }
        for port in &*self.ports {
            port.kick.drain();
            port.call.drain();
        }
    }

    /// How the device is now. Asks nobody, and leaves the back-end's work alone.
    #[must_use]
    pub fn status(&self) -> DeviceStatus {
        self.record.status()
    }

    /// Moves the running device to the back-end at socket `to`. Where that can't take over, the
    /// device stays with the one it has. Waits until it is done or has failed.
    ///
    /// # Errors
    /// [`VhostUserError`] naming why the other can't take over.
    pub fn swap(&self, to: PathBuf) -> Result<(), VhostUserError> {
        let source = Box::new(SocketPeer::new(to));
        self.command(|outcome| Command::Swap(source, outcome))
    }

    /// Drops the connection as if the back-end had gone, and looks for it again at once. Waits
    /// until there is one again, or the attempt has failed.
    ///
    /// # Errors
    /// [`VhostUserError`] naming why there is none.
    pub fn reattach(&self) -> Result<(), VhostUserError> {
        self.command(Command::Reattach)
    }

    fn command(&self, command: impl FnOnce(Sender<Outcome>) -> Command) -> Outcome {
        // The thread may be in the middle of one exchange. Then come a handshake, taking the rings
        // back, handing them over, and the latter two once more.
        let patience = (REPLY_DEADLINE + STOP_DEADLINE) * 3;
        let (sender, outcome) = channel();
        self.mailbox.command(command(sender));
        outcome.recv_timeout(patience).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => Err(VhostUserError::Busy(patience)),
            RecvTimeoutError::Disconnected => Err(VhostUserError::Ended),
        })
    }

    /// Takes the rings back, closes the connection and ends the device's thread.
    pub fn shutdown(&self) {
        self.mailbox.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            warn!("device {}: its thread failed", self.id);
        }
    }
}

impl Drop for RemoteDevice {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl VirtioDevice for RemoteDevice {
    fn id(&self) -> &str {
        &self.id
    }

    fn device_type(&self) -> DeviceType {
        self.device_type
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queues(&self) -> &[QueuePort] {
        &self.ports
    }

    fn config(&self) -> Vec<u8> {
        self.mailbox.config()
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        self.mailbox.write_config(offset, data);
    }

    fn start(&self, activation: Activation) {
        self.mailbox.start(activation);
    }

    fn reset(&self) {
        self.mailbox.reset();
    }

    fn attach(&self, events: Weak<dyn DeviceEvents>) {
        self.mailbox.attach(events);
    }
}

fn event() -> Result<Event, VhostUserError> {
    Event::new().map_err(|source| VhostUserError::Descriptor { what: "an eventfd", source })
}

fn port(max_size: u16) -> Result<QueuePort, VhostUserError> {
    Ok(QueuePort { kick: Arc::new(event()?), call: Arc::new(event()?), max_size })
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
