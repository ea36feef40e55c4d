//! A front-end's part in recovery: a ring and the record of what is in flight, kept while the device
//! processes that serve them come and go.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserInflight;

use crate::{Error, FrontEnd, Memory, PROTOCOL_FEATURES, ProtocolFeatures, Queue};

/// What outlives a device process: memory, queue 0, and the record of what is in flight there.
pub struct Survivor {
    memory: Memory,
    features: u64,
    protocol: ProtocolFeatures,
    /// The queue. It may be filled before any process serves it.
    pub queue: Queue,
    record: Option<(VhostUserInflight, File)>,
}

impl Survivor {
    /// A queue of `size` in `memory`, for a driver that accepts `features`.
    ///
    /// # Errors
    /// No memory, or no eventfds.
    pub fn new(memory: Memory, size: u16, features: u64) -> Result<Self, Error> {
        let queue = Queue::new(&memory, 0, size, features)?;
        Ok(Self { memory, features, protocol: PROTOCOL_FEATURES, queue, record: None })
    }

    /// Accepts these protocol features, too, where they are offered.
    pub fn accept(&mut self, more: ProtocolFeatures) {
        self.protocol |= more;
    }

    /// Connects to the process that serves `socket` now, waiting for it, and lets it go on from the
    /// record; the first one starts it.
    ///
    /// # Errors
    /// [`Error::Exchange`] with the message that failed.
    pub fn attach(&mut self, socket: impl AsRef<Path>) -> Result<FrontEnd, Error> {
        let device = FrontEnd::connect(socket, self.memory.clone())?;
        self.go_on(device)
    }

    /// As [`Survivor::attach`], over a stream that is connected already.
    ///
    /// # Errors
    /// [`Error::Exchange`] with the message that failed.
    pub fn attach_over(&mut self, stream: UnixStream) -> Result<FrontEnd, Error> {
        let device = FrontEnd::over(stream, self.memory.clone())?;
        self.go_on(device)
    }

    /// As [`Survivor::attach`], with a process that keeps no record.
    ///
    /// # Errors
    /// [`Error::Exchange`] with the message that failed.
    pub fn attach_untracked(&mut self, socket: impl AsRef<Path>) -> Result<FrontEnd, Error> {
        let mut device = FrontEnd::connect(socket, self.memory.clone())?;
        let protocol = PROTOCOL_FEATURES.difference(ProtocolFeatures::INFLIGHT_SHMFD);
        device.negotiate_with(self.features, protocol)?;
        self.start(&mut device)?;
        Ok(device)
    }

    /// The file of the record, once there is one.
    pub fn record(&self) -> Option<&File> {
        self.record.as_ref().map(|(_, file)| file)
    }

    /// The guest memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    fn go_on(&mut self, mut device: FrontEnd) -> Result<FrontEnd, Error> {
        device.negotiate_with(self.features, self.protocol)?;
        self.hand_record(&mut device)?;
        self.start(&mut device)?;
        Ok(device)
    }

    /// As QEMU does: the ring goes on at the used index, and what is in flight is the record's.
    fn start(&self, device: &mut FrontEnd) -> Result<(), Error> {
        device.attach(&self.queue, self.queue.ring().used_index()?)
    }

    fn hand_record(&mut self, device: &mut FrontEnd) -> Result<(), Error> {
        let wanted = VhostUserInflight::new(0, 0, 1, self.queue.ring().size());
        let (layout, file) = match self.record.take() {
            Some(record) => record,
            None => device.exchange("GET_INFLIGHT_FD", |inner| inner.get_inflight_fd(&wanted))?,
        };
        let handed = device
            .exchange("SET_INFLIGHT_FD", |inner| inner.set_inflight_fd(&layout, file.as_raw_fd()));
        self.record = Some((layout, file));
        handed
    }
}
