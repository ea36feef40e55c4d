//! A disk's backend that a test scripts: right in everything, until it is told to do one thing
//! wrong.
//!
//! It speaks the protocol itself, message by message, and serves no request: its rings are never
//! looked at.

use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use atoll_driver::{Message, Wire};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::PATIENCE;
use crate::peer::{GET_CONFIG, GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM};
use crate::scratch::Scratch;

/// VHOST_USER_SET_FEATURES.
pub const SET_FEATURES: u32 = 2;
/// VHOST_USER_SET_MEM_TABLE.
pub const SET_MEM_TABLE: u32 = 5;
/// VHOST_USER_GET_VRING_BASE.
pub const GET_VRING_BASE: u32 = 11;
/// VHOST_USER_SET_VRING_KICK.
pub const SET_VRING_KICK: u32 = 12;
/// VHOST_USER_SET_VRING_ENABLE.
pub const SET_VRING_ENABLE: u32 = 18;
/// VHOST_USER_SET_BACKEND_REQ_FD.
pub const SET_BACKEND_REQ_FD: u32 = 21;
/// VHOST_USER_GET_INFLIGHT_FD.
pub const GET_INFLIGHT_FD: u32 = 31;

/// A header's flags: version 1 and "reply", and "need_reply".
pub const REPLY: u32 = 0b101;
const NEED_REPLY: u32 = 8;

/// What the disk is.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Virtio features besides VERSION_1 and those of the protocol.
    pub features: u64,
    /// VHOST_USER_PROTOCOL_F_….
    pub protocol: u64,
    /// What GET_QUEUE_NUM is answered.
    pub queues: u64,
    /// Configuration space, zeroes after its end.
    pub config: Vec<u8>,
}

impl Default for Disk {
    /// One queue and 1 MiB: MQ, REPLY_ACK, BACKEND_REQ, CONFIG and INFLIGHT_SHMFD.
    fn default() -> Self {
        let config = 2048_u64.to_le_bytes().to_vec();
        Self {
            features: 1 << 9,
            protocol: 1 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 12,
            queues: 1,
            config,
        }
    }
}

/// How one connection goes.
#[derive(Default)]
pub enum Conduct {
    /// Right, until the front-end goes.
    #[default]
    Right,
    /// As another disk.
    As(Disk),
    /// Something else instead of the reply with this number, counted from 0.
    Instead(usize, Wrong),
    /// Right until the rings run, then this, with all that the front-end has given.
    Once(Box<dyn FnOnce(&mut Running) + Send>),
}

/// Something else than the reply that is due. After it the backend waits for the front-end to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The connection is closed.
    Close,
    /// Nothing.
    Silence,
    /// Bytes that are no message.
    Garbage,
    /// A header that ends early.
    HalfHeader,
    /// A body that ends early.
    HalfBody,
    /// A header that ends early, and the connection with it.
    HalfThenClose,
    /// A reply to another request.
    OtherRequest,
    /// A message without the reply flag.
    NoReplyFlag,
    /// Of another version of the protocol.
    OtherVersion,
    /// A byte less.
    Shorter,
    /// A byte more.
    Longer,
    /// No body.
    Empty,
    /// A body of almost 4 GiB, as the header has it.
    Endless,
    /// The right reply with a descriptor.
    Descriptor,
    /// The right reply with as many descriptors as the kernel passes at once.
    Descriptors,
    /// The right reply twice.
    Twice,
    /// All bits set in a body of the right length.
    Ones,
}

impl Wrong {
    /// Everything.
    pub const ALL: [Self; 17] = [
        Self::Close,
        Self::Silence,
        Self::Garbage,
        Self::HalfHeader,
        Self::HalfBody,
        Self::HalfThenClose,
        Self::OtherRequest,
        Self::NoReplyFlag,
        Self::OtherVersion,
        Self::Shorter,
        Self::Longer,
        Self::Empty,
        Self::Endless,
        Self::Descriptor,
        Self::Descriptors,
        Self::Twice,
        Self::Ones,
    ];
}

/// What a backend has when its rings run.
pub struct Running {
    /// The connection.
    pub wire: Wire,
    /// The backend's own channel.
    pub back: Option<Wire>,
    /// The guest's memory.
    pub memory: Vec<OwnedFd>,
    /// Kick, call and error events, as they came.
    pub events: Vec<OwnedFd>,
    disk: Disk,
}

impl Running {
    /// Goes on as a right backend until the front-end goes.
    pub fn serve(&mut self) {
        while let Ok(Some(message)) = self.wire.receive() {
            let (body, fds) = reply(&self.disk, &message);
            if let Some(body) = body {
                say(&self.wire, [message.request, REPLY], &body, &raw(&fds));
            }
        }
    }

    /// Waits until the front-end goes, and answers nothing.
    pub fn sulk(&mut self) {
        while let Ok(Some(_)) = self.wire.receive() {}
    }
}

/// A listening socket and the thread that plays the backend on it.
pub struct FakeBackend {
    socket: PathBuf,
    script: Sender<Conduct>,
    seen: Arc<Seen>,
    _scratch: Scratch,
}

#[derive(Default)]
struct Seen {
    counts: Mutex<Counts>,
    more: Condvar,
}

/// What has happened at a backend so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub connections: usize,
    /// Requests that were replied to, until the rings ran.
    pub replied: Vec<u32>,
    /// Times that the rings came to run.
    pub starts: usize,
    /// Connections that were over.
    pub ends: usize,
}

impl FakeBackend {
    /// Listens; connections go as [`next`](Self::next) says, and right when it has said nothing.
    #[track_caller]
    pub fn new() -> Self {
        let scratch = Scratch::new();
        let socket = scratch.join("vhost0");
        let listener = UnixListener::bind(&socket).expect("listen as a backend");
        let (script, conducts) = channel();
        let seen = Arc::new(Seen::default());
        let other = Arc::clone(&seen);
        // The thread ends with the test's process: it may be waiting for a front-end.
        std::thread::spawn(move || serve(&listener, &conducts, &other));
        Self { socket, script, seen, _scratch: scratch }
    }

    /// Has one more connection, after those that were told of already, go so.
    pub fn next(&self, conduct: Conduct) {
        self.script.send(conduct).expect("a backend's thread");
    }

    /// The socket it listens on.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.seen.lock().clone()
    }

    /// Waits until enough has happened.
    ///
    /// # Panics
    /// When it does not; `what` names what was waited for.
    #[track_caller]
    pub fn wait_until(&self, what: &str, mut enough: impl FnMut(&Counts) -> bool) -> Counts {
        let counts = self.seen.lock();
        let (counts, waited) = self
            .seen
            .more
            .wait_timeout_while(counts, PATIENCE, |counts| !enough(counts))
            .expect("a backend's lock");
        assert!(!waited.timed_out(), "waited {PATIENCE:?} in vain for {what}: {counts:?}");
        counts.clone()
    }
}

impl Default for FakeBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("a backend's lock")
    }

    fn count(&self, what: impl FnOnce(&mut Counts)) {
        what(&mut self.lock());
        self.more.notify_all();
    }
}

fn serve(listener: &UnixListener, conducts: &Receiver<Conduct>, seen: &Seen) {
    for stream in listener.incoming().map_while(Result::ok) {
        seen.count(|counts| counts.connections += 1);
        let conduct = conducts.try_recv().unwrap_or_default();
        let wire = Wire::over(stream).expect("a connection");
        // A front-end says nothing for as long as it likes.
        wire.stream().set_read_timeout(None).expect("no deadline");
        converse(wire, conduct, seen);
        seen.count(|counts| counts.ends += 1);
    }
}

fn converse(wire: Wire, conduct: Conduct, seen: &Seen) {
    let disk = if let Conduct::As(disk) = &conduct { disk.clone() } else { Disk::default() };
    let mut running = Running { wire, back: None, memory: Vec::new(), events: Vec::new(), disk };
    let mut replies = 0;
    while let Ok(Some(message)) = running.wire.receive() {
        let (body, fds) = reply(&running.disk, &message);
        keep(&mut running, message.request, message.fds);
        let Some(body) = body else { continue };
        if let Conduct::Instead(at, wrong) = conduct
            && at == replies
        {
            go_wrong(&running.wire, message.request, &body, wrong);
            if wrong != Wrong::Close && wrong != Wrong::HalfThenClose {
                running.sulk();
            }
            return;
        }
        say(&running.wire, [message.request, REPLY], &body, &raw(&fds));
        replies += 1;
        seen.count(|counts| counts.replied.push(message.request));
        if message.request == SET_VRING_ENABLE && message.payload.get(4) == Some(&1) {
            seen.count(|counts| counts.starts += 1);
            if let Conduct::Once(act) = conduct {
                return act(&mut running);
            }
        }
    }
}

/// The reply that is due to `message`, if any, with its descriptors.
fn reply(disk: &Disk, message: &Message) -> (Option<Vec<u8>>, Vec<OwnedFd>) {
    let number = |value: u64| Some(value.to_le_bytes().to_vec());
    let body = match message.request {
        // VIRTIO_F_VERSION_1 and VHOST_USER_F_PROTOCOL_FEATURES.
        GET_FEATURES => number(disk.features | 1 << 32 | 1 << 30),
        GET_PROTOCOL_FEATURES => number(disk.protocol),
        GET_QUEUE_NUM => number(disk.queues),
        GET_CONFIG => {
            let mut body = message.payload.clone();
            for (to, from) in body.iter_mut().skip(12).zip(&disk.config) {
                *to = *from;
            }
            Some(body)
        }
        GET_VRING_BASE => {
            // It has never looked at the ring, so that is where it stands.
            let mut body = message.payload.clone();
            body.iter_mut().skip(4).for_each(|byte| *byte = 0);
            Some(body)
        }
        GET_INFLIGHT_FD => return inflight(&message.payload),
        _ if message.flags & NEED_REPLY != 0 => number(0),
        _ => None,
    };
    (body, Vec::new())
}

/// "Inflight description": mmap size, mmap offset, number of queues, queue size.
fn inflight(asked: &[u8]) -> (Option<Vec<u8>>, Vec<OwnedFd>) {
    let size: u64 = 0x1000;
    let fd = memfd_create(c"inflight", MFdFlags::MFD_CLOEXEC).expect("make a memfd");
    nix::unistd::ftruncate(&fd, 0x1000).expect("size a memfd");
    let mut body = asked.to_vec();
    for (to, from) in body.iter_mut().zip(size.to_le_bytes()) {
        *to = from;
    }
    (Some(body), vec![fd])
}

fn keep(running: &mut Running, request: u32, fds: Vec<OwnedFd>) {
    match request {
        SET_MEM_TABLE => running.memory = fds,
        SET_BACKEND_REQ_FD => {
            let streams = fds.into_iter().map(UnixStream::from);
            running.back = streams.filter_map(|stream| Wire::over(stream).ok()).next();
        }
        // SET_VRING_KICK, CALL and ERR.
        12..=14 => running.events.extend(fds),
        _ => {}
    }
}

fn go_wrong(wire: &Wire, request: u32, reply: &[u8], wrong: Wrong) {
    let whole = frame([request, REPLY], reply.len(), reply);
    let bytes = match wrong {
        Wrong::Close | Wrong::Silence => return,
        Wrong::Garbage => b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(16),
        Wrong::HalfHeader | Wrong::HalfThenClose => whole[..7].to_vec(),
        Wrong::HalfBody => whole[..whole.len() - 1].to_vec(),
        Wrong::OtherRequest => frame([request + 1, REPLY], reply.len(), reply),
        Wrong::NoReplyFlag => frame([request, 1], reply.len(), reply),
        Wrong::OtherVersion => frame([request, REPLY ^ 2], reply.len(), reply),
        Wrong::Shorter => frame([request, REPLY], reply.len() - 1, &reply[1..]),
        Wrong::Longer => frame([request, REPLY], reply.len() + 1, &[reply, &[0]].concat()),
        Wrong::Empty => frame([request, REPLY], 0, &[]),
        Wrong::Endless => frame([request, REPLY], 0xffff_fff0, &vec![0; 1 << 16]),
        Wrong::Twice => whole.repeat(2),
        Wrong::Ones => frame([request, REPLY], reply.len(), &vec![0xff; reply.len()]),
        Wrong::Descriptor => return say(wire, [request, REPLY], reply, &nulls(1)),
        Wrong::Descriptors => return say(wire, [request, REPLY], reply, &nulls(253)),
    };
    push(wire.stream(), &bytes);
}

/// Many times the number of one descriptor: the kernel makes a new one of each.
fn nulls(count: usize) -> Vec<RawFd> {
    // Standard error: whatever it is, it is open.
    vec![2; count]
}

/// A message with any length in its header.
pub fn frame([request, flags]: [u32; 2], length: usize, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).expect("a length of 32 bits");
    let header = [request, flags, length];
    header.iter().flat_map(|word| word.to_le_bytes()).chain(body.iter().copied()).collect()
}

/// Says a message, to whom may have gone.
pub fn say(wire: &Wire, [request, flags]: [u32; 2], body: &[u8], fds: &[RawFd]) {
    let length = u32::try_from(body.len()).expect("a short body");
    let _gone = wire.send_raw([request, flags, length], body, fds);
}

/// Says `bytes`, as long as somebody takes them: false when nobody has for some time, or has gone.
pub fn push(mut stream: &UnixStream, bytes: &[u8]) -> bool {
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("set a deadline");
    match stream.write_all(bytes) {
        Ok(()) => true,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(_gone) => false,
    }
}

fn raw(fds: &[OwnedFd]) -> Vec<RawFd> {
    fds.iter().map(|fd| fd.as_raw_fd()).collect()
}
