//! The vhost-user front-end: connects to a device process, negotiates, starts and stops rings.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{
    Frontend, FrontendReqHandler, HandlerResult, VhostUserFrontend, VhostUserFrontendReqHandler,
};
use vhost::{VhostBackend, VringConfigData};

use crate::queue::readable;
use crate::watchdog::Watchdog;
use crate::{Error, Memory, Queue, TIMEOUT};

/// The protocol features that the driver takes wherever they are offered.
pub const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::BACKEND_REQ)
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    .union(VhostUserProtocolFeatures::INFLIGHT_SHMFD)
    .union(VhostUserProtocolFeatures::RESET_DEVICE);

/// As many queues as a message can name.
const MAX_QUEUES: u64 = 256;

/// Counts what the device says on the back channel.
#[derive(Debug, Default)]
struct BackChannel {
    config_changes: AtomicU64,
}

impl VhostUserFrontendReqHandler for BackChannel {
    fn handle_config_change(&self) -> HandlerResult<u64> {
        self.config_changes.fetch_add(1, Ordering::Relaxed);
        Ok(0)
    }
}

/// A connection to a device process.
pub struct FrontEnd {
    inner: Frontend,
    stream: UnixStream,
    watchdog: Watchdog,
    memory: Memory,
    offered: u64,
    features: u64,
    protocol: VhostUserProtocolFeatures,
    back_channel: Option<(FrontendReqHandler<BackChannel>, Arc<BackChannel>)>,
}

impl FrontEnd {
    /// Connects to `socket`, waiting for somebody to serve it.
    ///
    /// # Errors
    /// [`Error::Connect`] when nobody does in time.
    pub fn connect(socket: impl AsRef<Path>, memory: Memory) -> Result<Self, Error> {
        let socket = socket.as_ref();
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => return Self::over(stream, memory),
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Err(source) => {
                    return Err(Error::Connect { path: socket.to_owned(), source });
                }
            }
        }
    }

    /// Speaks over a stream that is connected already.
    ///
    /// # Errors
    /// When the system has no second handle for it.
    pub fn over(stream: UnixStream, memory: Memory) -> Result<Self, Error> {
        let clone =
            || stream.try_clone().map_err(|source| Error::system("cloning a socket", source));
        Ok(Self {
            // A device that never answers fails a test instead of hanging it.
            watchdog: Watchdog::new(clone()?, TIMEOUT),
            stream: clone()?,
            inner: Frontend::from_stream(stream, MAX_QUEUES),
            memory,
            offered: 0,
            features: 0,
            protocol: VhostUserProtocolFeatures::empty(),
            back_channel: None,
        })
    }

    /// Leaves without a word, as a front-end that dies.
    pub fn disconnect(&self) {
        // It fails when the device process has left first.
        let _gone = self.stream.shutdown(Shutdown::Both);
    }

    /// Exchanges a message that has no method here, with a deadline.
    ///
    /// # Errors
    /// [`Error::Exchange`], which says what was being done.
    pub fn exchange<T>(
        &mut self,
        doing: &'static str,
        message: impl FnOnce(&mut Frontend) -> vhost::Result<T>,
    ) -> Result<T, Error> {
        let result = self.watchdog.limit(|| message(&mut self.inner));
        result.map_err(|source| Error::Exchange { doing, source })
    }

    /// The protocol's own front-end, which has no deadline.
    pub fn inner(&mut self) -> &mut Frontend {
        &mut self.inner
    }

    /// The guest memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The virtio features that the device offered.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// The virtio features that were accepted.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The protocol features that were accepted.
    pub fn protocol_features(&self) -> VhostUserProtocolFeatures {
        self.protocol
    }

    /// Negotiates: takes `wanted` as far as it is offered, and every protocol feature it knows.
    /// Then hands over the memory. Returns the virtio features accepted.
    ///
    /// # Errors
    /// [`Error::Exchange`] with the message that failed.
    pub fn negotiate(&mut self, wanted: u64) -> Result<u64, Error> {
        self.negotiate_with(wanted, PROTOCOL_FEATURES)
    }

    /// As [`FrontEnd::negotiate`], with a choice of protocol features. With none at all
    /// VHOST_USER_F_PROTOCOL_FEATURES is not acknowledged either.
    ///
    /// # Errors
    /// [`Error::Exchange`] with the message that failed.
    pub fn negotiate_with(
        &mut self,
        wanted: u64,
        protocol: VhostUserProtocolFeatures,
    ) -> Result<u64, Error> {
        self.exchange("SET_OWNER", |inner| inner.set_owner())?;
        self.offered = self.exchange("GET_FEATURES", |inner| inner.get_features())?;
        let transport = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() & self.offered;
        self.features = self.offered & wanted;
        if transport != 0 && !protocol.is_empty() {
            self.features |= transport;
            self.negotiate_protocol(protocol)?;
        }
        let features = self.features;
        self.exchange("SET_FEATURES", |inner| inner.set_features(features))?;
        self.set_memory()?;
        Ok(self.features)
    }

    fn negotiate_protocol(&mut self, wanted: VhostUserProtocolFeatures) -> Result<(), Error> {
        let offered =
            self.exchange("GET_PROTOCOL_FEATURES", |inner| inner.get_protocol_features())?;
        self.protocol = offered & wanted;
        let accepted = self.protocol;
        self.exchange("SET_PROTOCOL_FEATURES", |inner| inner.set_protocol_features(accepted))?;
        if self.protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            self.inner.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        if self.protocol.contains(VhostUserProtocolFeatures::BACKEND_REQ) {
            self.open_back_channel()?;
        }
        Ok(())
    }

    fn open_back_channel(&mut self) -> Result<(), Error> {
        let counts = Arc::new(BackChannel::default());
        let doing = "SET_BACKEND_REQ_FD";
        let mut channel = FrontendReqHandler::new(Arc::clone(&counts))
            .map_err(|error| back_channel_failed(doing, error))?;
        channel.set_reply_ack_flag(self.protocol.contains(VhostUserProtocolFeatures::REPLY_ACK));
        let fd = channel.get_tx_raw_fd();
        self.exchange(doing, |inner| inner.set_backend_request_fd(&fd))?;
        self.back_channel = Some((channel, counts));
        Ok(())
    }

    /// Hands the memory to the device (again).
    ///
    /// # Errors
    /// [`Error::Exchange`].
    pub fn set_memory(&mut self) -> Result<(), Error> {
        let table = self.memory.table();
        self.exchange("SET_MEM_TABLE", |inner| inner.set_mem_table(&table))?;
        Ok(())
    }

    /// How many queues the device says it has.
    ///
    /// # Errors
    /// [`Error::Exchange`], also when MQ was not negotiated.
    pub fn queue_count(&mut self) -> Result<u64, Error> {
        self.exchange("GET_QUEUE_NUM", |inner| inner.get_queue_num())
    }

    /// Reads the device's config space.
    ///
    /// # Errors
    /// [`Error::Exchange`], also when CONFIG was not negotiated.
    pub fn config(&mut self, offset: u32, len: u32) -> Result<Vec<u8>, Error> {
        let room = vec![0; usize::try_from(len).unwrap_or(0)];
        let (_, bytes) = self.exchange("GET_CONFIG", |inner| {
            inner.get_config(offset, len, VhostUserConfigFlags::empty(), &room)
        })?;
        Ok(bytes)
    }

    /// Writes the device's config space.
    ///
    /// # Errors
    /// [`Error::Exchange`], also when the device refuses and says so.
    pub fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        self.exchange("SET_CONFIG", |inner| {
            inner.set_config(offset, VhostUserConfigFlags::WRITABLE, bytes)
        })
    }

    /// Makes a queue and starts it.
    ///
    /// # Errors
    /// [`Error::Exchange`] with the message that failed.
    pub fn start_queue(&mut self, index: usize, size: u16) -> Result<Queue, Error> {
        let queue = Queue::new(&self.memory, index, size, self.features)?;
        self.attach(&queue, 0)?;
        Ok(queue)
    }

    /// Starts a queue that exists at available index `base`: after a stop, or with a device
    /// process that takes over from another.
    ///
    /// # Errors
    /// [`Error::Exchange`] with the message that failed.
    pub fn attach(&mut self, queue: &Queue, base: u16) -> Result<(), Error> {
        let index = queue.index();
        let [desc, avail, used] = queue.ring().addresses();
        let config = VringConfigData {
            queue_max_size: queue.ring().size(),
            queue_size: queue.ring().size(),
            flags: 0,
            desc_table_addr: self.memory.user_address(desc)?,
            used_ring_addr: self.memory.user_address(used)?,
            avail_ring_addr: self.memory.user_address(avail)?,
            log_addr: None,
        };
        self.exchange("SET_VRING_NUM", |inner| inner.set_vring_num(index, config.queue_size))?;
        self.exchange("SET_VRING_BASE", |inner| inner.set_vring_base(index, base))?;
        self.exchange("SET_VRING_ADDR", |inner| inner.set_vring_addr(index, &config))?;
        self.exchange("SET_VRING_ERR", |inner| inner.set_vring_err(index, &queue.err))?;
        self.exchange("SET_VRING_CALL", |inner| inner.set_vring_call(index, &queue.call))?;
        self.exchange("SET_VRING_KICK", |inner| inner.set_vring_kick(index, &queue.kick))?;
        if self.features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0 {
            self.enable(queue, true)?;
        }
        Ok(())
    }

    /// Enables or disables a queue that stays set up.
    ///
    /// # Errors
    /// [`Error::Exchange`].
    pub fn enable(&mut self, queue: &Queue, enabled: bool) -> Result<(), Error> {
        self.exchange("SET_VRING_ENABLE", |inner| inner.set_vring_enable(queue.index(), enabled))
    }

    /// Stops a queue. Returns the available index that the device would have looked at next.
    ///
    /// # Errors
    /// [`Error::Exchange`].
    pub fn stop_queue(&mut self, queue: &Queue) -> Result<u16, Error> {
        let base = self.exchange("GET_VRING_BASE", |inner| inner.get_vring_base(queue.index()))?;
        // The upper half belongs to packed rings.
        Ok((base & 0xffff) as u16)
    }

    /// Waits until the device says that its config space changed, and acknowledges it.
    ///
    /// # Errors
    /// [`Error::Late`] when it doesn't in time, [`Error::Exchange`] when it says something else.
    pub fn wait_config_change(&mut self, timeout: Duration) -> Result<(), Error> {
        let late = Error::Late { what: "a config change", timeout };
        let Some((channel, counts)) = &mut self.back_channel else {
            return Err(late);
        };
        let before = counts.config_changes.load(Ordering::Relaxed);
        let deadline = Instant::now() + timeout;
        while counts.config_changes.load(Ordering::Relaxed) == before {
            if !readable(channel, deadline.saturating_duration_since(Instant::now()))? {
                return Err(late);
            }
            channel.handle_request().map_err(|error| back_channel_failed("back channel", error))?;
        }
        Ok(())
    }
}

fn back_channel_failed(doing: &'static str, error: vhost::vhost_user::Error) -> Error {
    let source = vhost::Error::VhostUserProtocol(error);
    Error::Exchange { doing, source }
}
