//! One front-end's session: what each vhost-user message means for the memory table, the queues
//! and the device. It reads no sockets, and starts no rings itself.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::fs::File;
use std::io;
use std::sync::Arc;

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
use crate::event;
use crate::inflight::{InflightError, InflightRegion};
use crate::memory::{MemoryError, MemoryTable, RegionSpec};
use crate::metrics::Metrics;
use crate::queue::{QueueSetup, RingAddresses};
use crate::ring_thread::Stops;
use crate::rings::{ChangeError, NoQueue, Rings};

type WireResult<T> = Result<T, WireError>;

/// What the shared code offers on behalf of every device.
const RING_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::BACKEND_REQ)
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::INFLIGHT_SHMFD)
    .union(VhostUserProtocolFeatures::GET_VRING_BASE_INFLIGHT)
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
    #[error("the device does not open queue {index}")]
    Device { index: u32, source: DeviceError },
}

impl From<Refused> for WireError {
    fn from(refused: Refused) -> Self {
        Self::ReqHandlerError(io::Error::other(refused))
    }
}

/// The state that one front-end builds up.
pub(crate) struct Session {
    device: Arc<dyn Device>,
    identity: Identity,
    protocol_features: u64,
    /// Whether the front-end has said what it takes of the features.
    features_set: bool,
    rings: Rings,
}

impl Session {
    pub(crate) fn new(device: Arc<dyn Device>, metrics: Option<Arc<Metrics>>) -> Self {
        let identity = device.identity();
        let rings = Rings::new(Arc::clone(&device), identity.queues, metrics);
        Self { device, identity, protocol_features: 0, features_set: false, rings }
    }

    /// Whether requests may ask to be acknowledged.
    pub(crate) fn replies_to_all(&self) -> bool {
        self.protocol_features & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0
    }

    /// Whether the front-end has said what it takes of the features.
    pub(crate) fn features_set(&self) -> bool {
        self.features_set
    }

    /// Whether the front-end has enabled a queue.
    pub(crate) fn is_enabled(&mut self, index: u32) -> WireResult<bool> {
        self.rings.is_enabled(index).map_err(|none| self.no_queue(index, none))
    }

    /// Resets the device and stops all rings, with what is in flight finished, or left for whoever
    /// gets the record of it.
    pub(crate) fn end(&mut self) {
        self.device.reset();
        self.rings.stop_all();
    }

    fn offered(&self) -> u64 {
        self.identity.features | RING_FEATURES | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn change(&mut self, index: u32, change: impl FnOnce(&mut QueueSetup)) -> WireResult<()> {
        self.rings.change(index, change).map_err(|error| match error {
            ChangeError::NoQueue => self.no_queue(index, NoQueue),
            ChangeError::Device(source) => Refused::Device { index, source }.into(),
        })
    }

    fn no_queue(&self, index: u32, _none: NoQueue) -> WireError {
        Refused::QueueIndex { index, count: self.identity.queues }.into()
    }

    fn change_memory(
        &mut self,
        change: impl FnOnce(&mut MemoryTable) -> Result<(), MemoryError>,
    ) -> WireResult<()> {
        let changed = self.rings.change_ground(|ground| change(&mut ground.memory));
        changed.map_err(|error| Refused::Memory(error).into())
    }
}

fn signal(index: u8, file: Option<File>) -> Result<Option<Arc<File>>, Refused> {
    let accepted = file.map(event::accept_signal).transpose();
    let accepted = accepted.map_err(|source| Refused::Descriptor { index, source })?;
    Ok(accepted.map(Arc::new))
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
        self.device.reset();
        self.rings.reset();
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
        self.features_set = true;
        self.rings.change_ground(|ground| ground.features = features);
        // vhost-user, "Ring states": without protocol features there is no message to enable a
        // ring, so that all are.
        if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            self.rings.enable_all();
        }
        Ok(())
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
        self.change_memory(|memory| memory.replace(specs.zip(files))).map(|()| None)
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
        // vhost-user: a ring stops with all done that was begun, unless this was agreed upon.
        let leaves = VhostUserProtocolFeatures::GET_VRING_BASE_INFLIGHT.bits();
        let stops = if self.protocol_features & leaves != 0 { Stops::Leaving } else { Stops::Done };
        let base = self.rings.stop(index, stops).map_err(|none| self.no_queue(index, none))?;
        Ok(VhostUserVringState::new(index, base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> WireResult<()> {
        let fd = fd.ok_or(Refused::NoKick { index })?;
        let fd = event::accept(fd).map_err(|source| Refused::Descriptor { index, source })?;
        self.change(index.into(), |setup| setup.kick = Some(Arc::new(fd)))
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> WireResult<()> {
        let fd = signal(index, fd)?;
        // Completions may have gone uncalled while there was no descriptor, or another.
        self.change(index.into(), |setup| (setup.call, setup.call_due) = (fd, true))
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> WireResult<()> {
        let fd = signal(index, fd)?;
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
        if self.is_enabled(index)? == enable {
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
        self.rings.change_ground(|ground| {
            region.kept().into_iter().for_each(|kept| ground.device.keep(kept));
            ground.inflight = Some(region);
        });
        Ok(())
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
        self.change_memory(|memory| memory.add(spec, file)).map(|()| None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> WireResult<()> {
        let spec = single_region(region);
        self.change_memory(|memory| memory.remove(spec))
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
