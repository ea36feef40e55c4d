//! Back-ends for tests: one that does everything right, by another implementation of the protocol,
//! and one that does one thing wrong.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vhost::vhost_user::message::*;
use vhost::vhost_user::{
    BackendReqHandler, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut,
};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use super::error::VhostUserError;
use super::handover::Handover;
use super::memory::Table;
use super::session::Session;
use super::wire::Wire;
use crate::irq::Event;
use crate::virtio::{Activation, QueuePort, Ring};

/// 1 MiB of guest memory in a file.
pub(super) fn memory() -> GuestMemoryMmap {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let part = Some(FileOffset::new(file, 0));
    GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), 1 << 20, part)]).unwrap()
}

pub(super) fn ports(count: usize) -> Vec<QueuePort> {
    let event = || Arc::new(Event::new().unwrap());
    (0..count).map(|_| QueuePort { kick: event(), call: event(), max_size: 256 }).collect()
}

/// A driver that has started queue 1.
pub(super) fn activation() -> Activation {
    let ring = Ring { index: 1, size: 64, desc: 0x1000, avail: 0x2000, used: 0x3000 };
    Activation { features: 1 << 32, rings: vec![ring] }
}

/// Hands the rings of [`activation`] over, fresh.
pub(super) fn start(session: &mut Session) -> std::result::Result<(), VhostUserError> {
    let handover = Handover {
        activation: &activation(),
        bases: &[0],
        table: &Table::new(&memory()).unwrap(),
        ports: &ports(2),
        broken: &Event::new().unwrap(),
        queues: (2, 256),
    };
    session.start(&handover, &mut None)
}

/// A back-end that does everything right and remembers it.
pub(super) struct Obedient {
    pub(super) features: u64,
    pub(super) protocol: VhostUserProtocolFeatures,
    pub(super) queues: u64,
    pub(super) config: Vec<u8>,
    /// What it was told, in words.
    pub(super) log: Vec<String>,
    /// The last kick, call and error event of each queue.
    pub(super) kicks: Vec<Option<File>>,
    pub(super) calls: Vec<Option<File>>,
    pub(super) errs: Vec<Option<File>>,
    /// Whether SET_CONFIG is refused.
    pub(super) read_only: bool,
    /// Where it says that it would have gone on in a ring.
    pub(super) base: u32,
    /// Which ring it does not take.
    pub(super) refuses_ring: Option<u32>,
    /// Inode of the record of what is in flight that it was given.
    pub(super) inflight: Option<u64>,
}

fn none<T>(count: u64) -> Vec<Option<T>> {
    (0..count).map(|_| None).collect()
}

impl Obedient {
    /// A blk device with that many queues.
    pub(super) fn new(queues: u16) -> Self {
        let mut config = vec![0; 36];
        config[34..].copy_from_slice(&queues.to_le_bytes());
        let queues = queues.into();
        Self {
            // VERSION_1, PROTOCOL_FEATURES, EVENT_IDX, MQ, FLUSH.
            features: 1 << 32 | 1 << 30 | 1 << 29 | 1 << 12 | 1 << 9,
            protocol: VhostUserProtocolFeatures::MQ
                | VhostUserProtocolFeatures::REPLY_ACK
                | VhostUserProtocolFeatures::CONFIG
                | VhostUserProtocolFeatures::BACKEND_REQ
                | VhostUserProtocolFeatures::INFLIGHT_SHMFD,
            queues,
            config,
            log: Vec::new(),
            kicks: none(queues),
            calls: none(queues),
            errs: none(queues),
            read_only: false,
            base: 0,
            refuses_ring: None,
            inflight: None,
        }
    }

    /// Serves one connection until it ends.
    pub(super) fn serve(self, stream: UnixStream) -> (Arc<Mutex<Self>>, JoinHandle<()>) {
        let shared = Arc::new(Mutex::new(self));
        let thread = Self::serve_shared(&shared, stream);
        (shared, thread)
    }

    pub(super) fn serve_shared(shared: &Arc<Mutex<Self>>, stream: UnixStream) -> JoinHandle<()> {
        let mut handler = BackendReqHandler::from_stream(stream, Arc::clone(shared));
        let gone = |result| matches!(result, Err(Error::Disconnected | Error::SocketBroken(_)));
        thread::spawn(move || while !gone(handler.handle_request()) {})
    }

    fn note(&mut self, what: impl Into<String>) -> Result<()> {
        self.log.push(what.into());
        Ok(())
    }
}

impl VhostUserBackendReqHandlerMut for Obedient {
    fn set_owner(&mut self) -> Result<()> {
        self.note("owner")
    }
    fn get_features(&mut self) -> Result<u64> {
        Ok(self.features)
    }
    fn set_features(&mut self, features: u64) -> Result<()> {
        self.note(format!("features {features:#x}"))
    }
    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        self.note(format!("memory {} {}", regions.len(), files.len()))?;
        Ok(None)
    }
    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        if self.refuses_ring == Some(index) {
            return Err(Error::InvalidOperation("not this ring"));
        }
        self.note(format!("num {index} {num}"))
    }
    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        desc: u64,
        used: u64,
        avail: u64,
        _log: u64,
    ) -> Result<()> {
        self.note(format!("addr {index} {desc:#x} {avail:#x} {used:#x}"))
    }
    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.note(format!("base {index} {base}"))
    }
    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.note(format!("stop {index}"))?;
        Ok(VhostUserVringState::new(index, self.base))
    }
    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.kicks[usize::from(index)] = fd;
        self.note(format!("kick {index}"))
    }
    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.calls[usize::from(index)] = fd;
        self.note(format!("call {index}"))
    }
    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.errs[usize::from(index)] = fd;
        self.note(format!("err {index}"))
    }
    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(self.protocol)
    }
    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.note(format!("protocol {features:#x}"))
    }
    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.queues)
    }
    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.note(format!("enable {index} {enable}"))
    }
    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let (start, size) = (offset as usize, size as usize);
        self.config.get(start..start + size).map(<[u8]>::to_vec).ok_or(Error::InvalidParam)
    }
    fn set_config(&mut self, offset: u32, data: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        if self.read_only {
            return Err(Error::InvalidOperation("read-only"));
        }
        let start = offset as usize;
        self.config[start..start + data.len()].copy_from_slice(data);
        self.note(format!("config {offset} {data:?}"))
    }

    fn reset_owner(&mut self) -> Result<()> {
        Err(Error::InvalidMessage)
    }
    fn reset_device(&mut self) -> Result<()> {
        Err(Error::InvalidMessage)
    }
    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(Error::InvalidMessage)
    }
    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidMessage)
    }
    fn get_inflight_fd(&mut self, wanted: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let (queues, size) = (wanted.num_queues, wanted.queue_size);
        self.note(format!("make inflight {queues} {size}"))?;
        let file = tempfile::tempfile().unwrap();
        Ok((VhostUserInflight::new(0x1000, 0, queues, size), file))
    }
    fn set_inflight_fd(&mut self, kept: &VhostUserInflight, file: File) -> Result<()> {
        self.inflight = Some(std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap()));
        let (queues, size) = (kept.num_queues, kept.queue_size);
        self.note(format!("inflight {} {queues} {size}", kept.mmap_size))
    }
    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Err(Error::InvalidMessage)
    }
    fn add_mem_region(
        &mut self,
        _: &VhostUserSingleMemoryRegion,
        _: File,
        _: Option<bool>,
    ) -> Result<Option<u64>> {
        Err(Error::InvalidMessage)
    }
    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(Error::InvalidMessage)
    }
    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidMessage)
    }
    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidMessage)
    }
    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidMessage)
    }
    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(Error::InvalidMessage)
    }
}

/// One thing that a back-end can do wrong instead of replying.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wrong {
    Close,
    Silence,
    Garbage,
    HalfHeader,
    HalfBody,
    OtherRequest,
    NoReplyFlag,
    OtherSize,
    Empty,
    TooLong,
    Descriptors,
}

pub(super) const EVERY_WRONG: [Wrong; 11] = [
    Wrong::Close,
    Wrong::Silence,
    Wrong::Garbage,
    Wrong::HalfHeader,
    Wrong::HalfBody,
    Wrong::OtherRequest,
    Wrong::NoReplyFlag,
    Wrong::OtherSize,
    Wrong::Empty,
    Wrong::TooLong,
    Wrong::Descriptors,
];

/// Serves a blk device byte by byte, and does `wrong` instead of its `nth` reply, counted from 0.
/// Answers how many replies it gave.
pub(super) fn misbehave(stream: UnixStream, nth: usize, wrong: Wrong) -> JoinHandle<usize> {
    serve_raw(stream, nth, wrong, None)
}

/// Serves a blk device that also has a channel of its own, which is sent to `back`.
pub(super) fn with_back_channel(stream: UnixStream, back: Sender<Wire>) {
    serve_raw(stream, usize::MAX, Wrong::Close, Some(back));
}

fn serve_raw(
    mut stream: UnixStream,
    nth: usize,
    wrong: Wrong,
    back: Option<Sender<Wire>>,
) -> JoinHandle<usize> {
    let wire = Wire::new(stream.try_clone().unwrap()).unwrap();
    let own_channel = if back.is_some() { 0x20 } else { 0 };
    thread::spawn(move || {
        let mut replies = 0;
        while let Ok(message) = wire.receive(Instant::now() + Duration::from_secs(60)) {
            let u64_body = |value: u64| value.to_le_bytes().to_vec();
            if let (21, Some(back)) = (message.request, &back) {
                let fd = message.fds.into_iter().next().unwrap();
                back.send(Wire::new(UnixStream::from(fd)).unwrap()).unwrap();
            }
            let reply = match message.request {
                // VIRTIO_F_VERSION_1, the protocol features, and VIRTIO_BLK_F_FLUSH.
                1 => u64_body(1 << 32 | 1 << 30 | 1 << 9),
                11 | 24 | 31 => message.body,
                15 => u64_body(1 | 8 | 0x200 | 0x1000 | own_channel),
                17 => u64_body(2),
                _ if message.flags & 8 != 0 => u64_body(0),
                _ => continue,
            };
            if replies == nth {
                answer_wrong(&mut stream, message.request, &reply, wrong);
                return replies;
            }
            let deadline = Instant::now() + Duration::from_secs(60);
            if wire.send(message.request, 4, &reply, &[], deadline).is_err() {
                break;
            }
            replies += 1;
        }
        replies
    })
}

pub(super) fn message(request: u32, flags: u32, size: usize, body: &[u8]) -> Vec<u8> {
    let header = [request, flags, size as u32];
    header.iter().flat_map(|word| word.to_le_bytes()).chain(body.iter().copied()).collect()
}

fn answer_wrong(stream: &mut UnixStream, request: u32, reply: &[u8], wrong: Wrong) {
    let len = reply.len();
    let whole = message(request, 5, len, reply);
    let bytes = match wrong {
        Wrong::Close => return,
        Wrong::Silence => vec![],
        Wrong::Garbage => b"\xde\xad\xbe\xef".repeat(100),
        Wrong::HalfHeader => whole[..7].to_vec(),
        Wrong::HalfBody => whole[..whole.len() - 1].to_vec(),
        Wrong::OtherRequest => message(request + 1, 5, len, reply),
        Wrong::NoReplyFlag => message(request, 1, len, reply),
        Wrong::OtherSize => message(request, 5, len + 1, &[reply, &[0]].concat()),
        Wrong::Empty => message(request, 5, 0, &[]),
        Wrong::TooLong => message(request, 5, 1 << 20, &vec![0; 1 << 12]),
        Wrong::Descriptors => {
            let wire = Wire::new(stream.try_clone().unwrap()).unwrap();
            let null = File::open("/dev/null").unwrap();
            let fds = [std::os::fd::AsFd::as_fd(&null)];
            let soon = Instant::now() + Duration::from_secs(1);
            wire.send(request, 4, reply, &fds, soon).unwrap();
            vec![]
        }
    };
    stream.set_nonblocking(false).unwrap();
    // The front-end may have gone by now.
    drop(stream.write_all(&bytes));
    // Stay until it goes, so that the end of the connection is not what it notices.
    drop(stream.read_to_end(&mut Vec::new()));
}
