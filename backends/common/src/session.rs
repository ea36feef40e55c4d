//! One front-end's session: what each vhost-user message means for the memory table, the queues
//! and the device. It reads no sockets, and serves no rings.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::fs::File;
use std::io;
use std::sync::Arc;

use tap::TapFallible;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVirtioFeatures,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error as WireError, GpuBackend, VhostUserBackendReqHandlerMut};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::device::{ConfigRefused, Device, DeviceError, Identity};
use crate::error::Because;
use crate::event;
use crate::inflight::{InflightError, InflightRegion};
use crate::memory::{MemoryError, MemoryTable, RegionSpec};
use crate::queue::{QueueSetup, RingAddresses, Runnable};
use crate::ring_thread::RingThread;
use crate::vring::{RingSetup, Vring, VringError};

type WireResult<T> = Result<T, WireError>;

/// What the shared code offers on behalf of every device.
const RING_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::BACKEND_REQ)
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::INFLIGHT_SHMFD)
    .union(VhostUserProtocolFeatures::RESET_DEVICE)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// The front-end asked for what can't be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("queue {index} does not exist, there are {count}")]
    QueueIndex { index: u32, count: u16 },
    #[error("queue {index} cannot have {size} entries, only a power of two up to {max}")]
    QueueSize { index: u32, size: u32, max: u16 },
    #[error("queue {index} cannot start at {base}, which is beyond 16 bits")]
    QueueBase { index: u32, base: u32 },
    #[error("queue {index} without a kick descriptor would have to be polled")]
    NoKick { index: u8 },
    #[error("the features {unknown:#x} were never offered")]
    Features { unknown: u64 },
    #[error("the protocol features {unknown:#x} were never offered")]
    ProtocolFeatures { unknown: u64 },
    #[error("cannot take the memory table")]
    Memory(#[source] MemoryError),
    #[error("cannot track what is in flight")]
    Inflight(#[source] InflightError),
    #[error("{len} bytes at {offset} of the configuration space are beyond its end")]
    ConfigRange { offset: u32, len: usize },
    #[error("cannot write the configuration space")]
    Config(#[source] ConfigRefused),
    #[error("cannot use the descriptor for queue {index}")]
    Descriptor { index: u8, source: io::Error },
}

impl From<Refused> for WireError {
    fn from(refused: Refused) -> Self {
        Self::ReqHandlerError(io::Error::other(refused))
    }
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

#[derive(Default)]
struct Queue {
    setup: QueueSetup,
    running: Option<RingThread>,
}

/// The state that one front-end builds up; dropped, with all rings stopped, when it leaves.
pub(crate) struct Session {
    device: Arc<dyn Device>,
    identity: Identity,
    features: u64,
    protocol_features: u64,
    memory: MemoryTable,
    inflight: Option<InflightRegion>,
    queues: Vec<Queue>,
}

impl Session {
    pub(crate) fn new(device: Arc<dyn Device>) -> Self {
        let identity = device.identity();
        let queues = std::iter::repeat_with(Queue::default).take(usize::from(identity.queues));
        Self {
            device,
            identity,
            features: 0,
            protocol_features: 0,
            memory: MemoryTable::default(),
            inflight: None,
            queues: queues.collect(),
        }
    }

    /// Whether requests may ask to be acknowledged.
    pub(crate) fn replies_to_all(&self) -> bool {
        self.protocol_features & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0
    }

    /// Stops all rings, with what is in flight finished, and resets the device.
    pub(crate) fn end(&mut self) {
        self.stop_all();
        self.device.reset();
    }

    fn offered(&self) -> u64 {
        self.identity.features | RING_FEATURES | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn queue(&mut self, index: u32) -> Result<&mut Queue, Refused> {
        let count = self.identity.queues;
        let unknown = Refused::QueueIndex { index, count };
        usize::try_from(index).ok().and_then(|at| self.queues.get_mut(at)).ok_or(unknown)
    }

    /// Changes a queue's setup. A running ring stops for it, and goes on where it was.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut QueueSetup)) -> WireResult<()> {
        let queue = self.queue(index)?;
        queue.stop();
        change(&mut queue.setup);
        self.start(index);
        Ok(())
    }

    /// Changes what all rings stand on. Those that run stop for it, and go on where they were.
    fn change_all<E>(&mut self, change: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        self.stop_all();
        let result = change(self);
        for index in 0..u32::from(self.identity.queues) {
            self.start(index);
        }
        result
    }

    fn stop_all(&mut self) {
        self.queues.iter_mut().for_each(Queue::stop);
    }

    /// Starts the ring if it may run now. What keeps it from that may be the driver's doing, so it
    /// is the ring that breaks, not the session.
    fn start(&mut self, index: u32) {
        let Ok(queue) = self.queue(index) else { return };
        if queue.running.is_some() || queue.setup.runnable().is_none() {
            return;
        }
        let started = self.try_start(index).tap_err(|error| {
            tracing::error!("vring {index} does not start: {}", Because(error));
        });
        let Ok(queue) = self.queue(index) else { return };
        match started {
            Ok(running) => queue.running = running,
            Err(_logged) => {
                queue.setup.broken = true;
                queue.setup.error.iter().for_each(event::signal);
            }
        }
    }

    fn try_start(&self, index: u32) -> Result<Option<RingThread>, StartError> {
        let queue = usize::try_from(index).ok().and_then(|at| self.queues.get(at));
        let Some(setup) = queue.map(|queue| &queue.setup) else {
            return Ok(None);
        };
        let Some(Runnable { size, addresses, kick }) = setup.runnable() else {
            return Ok(None);
        };
        let Ok(index) = u16::try_from(index) else {
            return Ok(None);
        };
        let translate = |user| self.memory.translate(user).ok_or(StartError::Unmapped { user });
        let copy = |fd: &File| fd.try_clone().map_err(StartError::Thread);
        let ring = RingSetup {
            index,
            size,
            descriptors: translate(addresses.descriptors)?,
            avail: translate(addresses.avail)?,
            used: translate(addresses.used)?,
            next_avail: setup.base,
            event_idx: self.features & 1 << VIRTIO_RING_F_EVENT_IDX != 0,
            indirect: self.features & 1 << VIRTIO_RING_F_INDIRECT_DESC != 0,
            call: setup.call.as_ref().map(copy).transpose()?,
            inflight: self
                .inflight
                .as_ref()
                .map(|region| region.queue(index, size))
                .transpose()
                .map_err(|error| StartError::Ring(error.into()))?,
        };
        let vring = Vring::new(ring, self.memory.memory()).map_err(StartError::Ring)?;
        let worker = self.device.open_queue(index, self.features).map_err(StartError::Device)?;
        let error = setup.error.as_ref().map(copy).transpose()?;
        RingThread::start(vring, worker, copy(kick)?, error).map(Some).map_err(StartError::Thread)
    }
}

impl Queue {
    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            let stopped = running.stop();
            self.setup.base = stopped.vring.next_avail();
            self.setup.broken = stopped.failed;
        }
    }
}

fn event(index: u8, file: Option<File>) -> Result<Option<File>, Refused> {
    file.map(event::accept).transpose().map_err(|source| Refused::Descriptor { index, source })
}

fn unsupported<T>(what: &'static str) -> WireResult<T> {
    Err(WireError::InvalidOperation(what))
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> WireResult<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> WireResult<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> WireResult<()> {
        self.end();
        self.features = 0;
        self.inflight = None;
        for queue in &mut self.queues {
            queue.setup = QueueSetup::default();
        }
        Ok(())
    }

    fn get_features(&mut self) -> WireResult<u64> {
        Ok(self.offered())
    }

    fn set_features(&mut self, features: u64) -> WireResult<()> {
        let unknown = features & !self.offered();
        if unknown != 0 {
            return Err(Refused::Features { unknown }.into());
        }
        self.change_all(|session| {
            session.features = features;
            // vhost-user, "Ring states": without protocol features there is no message to enable
            // a ring, so that all are.
            if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
                session.queues.iter_mut().for_each(|queue| queue.setup.enabled = true);
            }
            Ok(())
        })
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> WireResult<Option<Vec<u64>>> {
        let specs = regions.iter().map(|region| RegionSpec {
            guest: region.guest_phys_addr,
            size: region.memory_size,
            user: region.user_addr,
            offset: region.mmap_offset,
        });
        self.change_all(|session| session.memory.replace(specs.zip(files)))
            .map_err(Refused::Memory)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> WireResult<()> {
        let max = self.identity.max_queue_size;
        let size = u16::try_from(num).ok().filter(|size| size.is_power_of_two() && *size <= max);
        let size = size.ok_or(Refused::QueueSize { index, size: num, max })?;
        self.change(index, |setup| setup.size = Some(size))
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        avail: u64,
        _log: u64,
    ) -> WireResult<()> {
        let addresses = RingAddresses { descriptors, avail, used };
        self.change(index, |setup| setup.addresses = Some(addresses))
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> WireResult<()> {
        let base = u16::try_from(base).map_err(|_wide| Refused::QueueBase { index, base })?;
        self.change(index, |setup| setup.base = base)
    }

    fn get_vring_base(&mut self, index: u32) -> WireResult<VhostUserVringState> {
        let queue = self.queue(index)?;
        queue.stop();
        Ok(VhostUserVringState::new(index, queue.setup.stop().into()))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> WireResult<()> {
        let fd = event(index, fd)?.ok_or(Refused::NoKick { index })?;
        self.change(index.into(), |setup| setup.kick = Some(fd))
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> WireResult<()> {
        let fd = event(index, fd)?;
        // Completions may have gone uncalled while there was no descriptor, or another.
        fd.iter().for_each(event::signal);
        self.change(index.into(), |setup| setup.call = fd)
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> WireResult<()> {
        let fd = event(index, fd)?;
        self.change(index.into(), |setup| setup.error = fd)
    }

    fn get_protocol_features(&mut self) -> WireResult<VhostUserProtocolFeatures> {
        Ok(PROTOCOL_FEATURES)
    }

    fn set_protocol_features(&mut self, features: u64) -> WireResult<()> {
        let unknown = features & !PROTOCOL_FEATURES.bits();
        if unknown != 0 {
            return Err(Refused::ProtocolFeatures { unknown }.into());
        }
        self.protocol_features = features;
        Ok(())
    }

    fn get_queue_num(&mut self) -> WireResult<u64> {
        Ok(self.identity.queues.into())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> WireResult<()> {
        if self.queue(index)?.setup.enabled == enable {
            return Ok(());
        }
        self.change(index, |setup| setup.enabled = enable)
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> WireResult<Vec<u8>> {
        // The wire bounds offset and size to the 4 KiB of a configuration space. Front-ends ask
        // for the fields that they know, which may be more than those of this device: zeroes.
        let config = self.device.config();
        let bytes = config.into_iter().skip(offset as usize).chain(std::iter::repeat(0));
        Ok(bytes.take(size as usize).collect())
    }

    fn set_config(
        &mut self,
        offset: u32,
        data: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> WireResult<()> {
        let len = data.len();
        let beyond = || Refused::ConfigRange { offset, len };
        let end = (offset as usize).checked_add(len).ok_or_else(beyond)?;
        if end > self.device.config().len() {
            return Err(beyond().into());
        }
        self.device.write_config(offset as usize, data).map_err(Refused::Config)?;
        Ok(())
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> WireResult<()> {
        unsupported("GPU_SET_SOCKET is for GPUs")
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> WireResult<File> {
        unsupported("there are no shared objects")
    }

    fn get_inflight_fd(
        &mut self,
        wanted: &VhostUserInflight,
    ) -> WireResult<(VhostUserInflight, File)> {
        let (queues, size) = (wanted.num_queues, wanted.queue_size);
        let (file, len) = InflightRegion::make(queues, size).map_err(Refused::Inflight)?;
        Ok((VhostUserInflight::new(len, 0, queues, size), file))
    }

    fn set_inflight_fd(&mut self, kept: &VhostUserInflight, file: File) -> WireResult<()> {
        let (len, offset) = (kept.mmap_size, kept.mmap_offset);
        let region = InflightRegion::map(file, offset, len, kept.num_queues, kept.queue_size)
            .map_err(Refused::Inflight)?;
        self.change_all(|session| {
            session.inflight = Some(region);
            Ok(())
        })
    }

    fn get_max_mem_slots(&mut self) -> WireResult<u64> {
        Ok(MemoryTable::MAX_SLOTS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> WireResult<Option<u64>> {
        let spec = single_region(region);
        self.change_all(|session| session.memory.add(spec, file)).map_err(Refused::Memory)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> WireResult<()> {
        let spec = single_region(region);
        self.change_all(|session| session.memory.remove(spec)).map_err(Refused::Memory)?;
        Ok(())
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> WireResult<Option<File>> {
        unsupported("DEVICE_STATE was not offered")
    }

    fn check_device_state(&mut self) -> WireResult<()> {
        unsupported("DEVICE_STATE was not offered")
    }

    fn get_shmem_config(&mut self) -> WireResult<VhostUserShMemConfig> {
        unsupported("SHMEM was not offered")
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> WireResult<()> {
        unsupported("LOG_SHMFD was not offered")
    }
}

fn single_region(region: &VhostUserSingleMemoryRegion) -> RegionSpec {
    RegionSpec {
        guest: region.guest_phys_addr,
        size: region.memory_size,
        user: region.user_addr,
        offset: region.mmap_offset,
    }
}
