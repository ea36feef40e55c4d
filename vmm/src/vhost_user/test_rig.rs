//! A whole remote device in a test: the guest's transport on one side, its back-ends on the other,
//! and the machine around it.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::device::RemoteDevice;
use super::test_doubles::{Obedient, memory};
use super::{DeviceEvent, DeviceSpec, EventKind, PeerSource, Policy, SocketPeer, Vmm};
use crate::virtio::{Activation, DeviceEvents, DeviceType, Ring, VirtioDevice};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    ResetDone,
    Config(Vec<u8>, bool),
    NeedsReset,
}

/// A transport that only listens.
struct Transport(Sender<Said>);

impl DeviceEvents for Transport {
    fn reset_done(&self) {
        self.0.send(Said::ResetDone).unwrap();
    }
    fn config_changed(&self, config: Vec<u8>, announce: bool) {
        self.0.send(Said::Config(config, announce)).unwrap();
    }
    fn needs_reset(&self) {
        self.0.send(Said::NeedsReset).unwrap();
    }
}

/// A machine that only listens: what it was told to do, and what happened.
#[derive(Default)]
pub(super) struct Machine {
    pub(super) told: Mutex<Vec<String>>,
    pub(super) events: Mutex<Vec<DeviceEvent>>,
}

impl Machine {
    fn note(&self, what: impl Into<String>) {
        self.told.lock().unwrap().push(what.into());
    }

    pub(super) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    pub(super) fn saw(&self, kind: EventKind) -> bool {
        self.events.lock().unwrap().iter().any(|event| event.kind == kind)
    }

    /// The text of the last event of that kind.
    pub(super) fn text(&self, kind: EventKind) -> String {
        let events = self.events.lock().unwrap();
        let event = events.iter().rev().find(|event| event.kind == kind);
        event.map(|event| event.text.clone()).unwrap_or_default()
    }
}

impl Vmm for Machine {
    fn pause(&self, _id: &str) {
        self.note("pause");
    }
    fn resume(&self, _id: &str) {
        self.note("resume");
    }
    fn stop(&self, _id: &str, why: &str) {
        self.note(format!("stop: {why}"));
    }
    fn event(&self, event: DeviceEvent) {
        self.events.lock().unwrap().push(event);
    }
}

pub(super) struct Rig {
    pub(super) device: Arc<RemoteDevice>,
    pub(super) machine: Arc<Machine>,
    pub(super) memory: GuestMemoryMmap,
    pub(super) said: Receiver<Said>,
    _transport: Arc<dyn DeviceEvents>,
}

pub(super) fn spec(peer: impl PeerSource + 'static) -> DeviceSpec {
    DeviceSpec {
        id: "disk0".into(),
        device_type: DeviceType::by_name("blk").unwrap(),
        peer: Box::new(peer),
        policy: Policy::default(),
        queues: None,
        queue_size: None,
        vcpus: 2,
        connect_timeout: Some(PATIENCE),
    }
}

pub(super) fn rig(peer: impl PeerSource + 'static) -> Rig {
    rig_of(spec(peer))
}

pub(super) fn rig_of(spec: DeviceSpec) -> Rig {
    let memory = memory();
    let machine = Arc::new(Machine::default());
    let vmm: Arc<dyn Vmm> = machine.clone();
    let device = RemoteDevice::connect(spec, &memory, &vmm).unwrap();
    let (sender, said) = channel();
    let transport: Arc<dyn DeviceEvents> = Arc::new(Transport(sender));
    device.attach(Arc::downgrade(&transport));
    Rig { device, machine, memory, said, _transport: transport }
}

impl Rig {
    pub(super) fn hear(&self) -> Said {
        self.said.recv_timeout(PATIENCE).expect("nothing was said")
    }

    pub(super) fn hears_nothing(&self) {
        let heard = self.said.recv_timeout(Duration::from_millis(50));
        assert!(heard.is_err(), "{heard:?}");
    }

    pub(super) fn reset(&self) {
        VirtioDevice::reset(&*self.device);
    }

    /// Writes 16 bits of guest memory.
    pub(super) fn poke(&self, at: u64, value: u16) {
        self.memory.write_obj(value, GuestAddress(at)).unwrap();
    }

    /// Has queue 0 look as if the driver had given `avail` requests, each in a descriptor of its
    /// own, of which the device did `used`, in order.
    pub(super) fn requests(&self, avail: u16, used: u16) {
        for request in 0..avail {
            let slot = u64::from(request);
            self.poke(0x1000 + 16 * slot + 8, 512);
            self.poke(0x2000 + 4 + 2 * slot, request);
            if request < used {
                self.poke(0x3000 + 4 + 8 * slot, request);
            }
        }
        self.poke(0x2002, avail);
        self.poke(0x3002, used);
    }

    /// Has queue 0 look as if a request had been overtaken by the one after it.
    pub(super) fn overtaken(&self) {
        self.requests(2, 0);
        self.poke(0x3004, 1);
        self.poke(0x3002, 1);
    }
}

/// Two rings of 64, the second one far from the first.
pub(super) fn activation() -> Activation {
    let ring = |index: u16| {
        let at = 0x1_0000 * u64::from(index);
        Ring { index, size: 64, desc: at + 0x1000, avail: at + 0x2000, used: at + 0x3000 }
    };
    Activation { features: 1 << 32, rings: vec![ring(0), ring(1)] }
}

pub(super) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn count(backend: &Mutex<Obedient>, line: &str) -> usize {
    backend.lock().unwrap().log.iter().filter(|logged| *logged == line).count()
}

/// A back-end at a socket, life after life.
pub(super) struct Server {
    dir: tempfile::TempDir,
    pub(super) backend: Arc<Mutex<Obedient>>,
    /// The connection of the present life.
    stream: Arc<Mutex<Option<UnixStream>>>,
}

impl Server {
    pub(super) fn new(backend: Obedient) -> Self {
        let server = Self {
            dir: tempfile::tempdir().unwrap(),
            backend: Arc::new(Mutex::new(backend)),
            stream: Arc::default(),
        };
        server.live();
        server
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("blk.sock")
    }

    pub(super) fn peer(&self) -> SocketPeer {
        SocketPeer::new(self.path())
    }

    /// Listens, and serves one connection.
    pub(super) fn live(&self) {
        let listener = bind(&self.path());
        let (backend, slot) = (Arc::clone(&self.backend), Arc::clone(&self.stream));
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            *slot.lock().unwrap() = Some(stream.try_clone().unwrap());
            Obedient::serve_shared(&backend, stream);
        });
    }

    /// Dies, and with it all that it had said.
    pub(super) fn die(&self) {
        let _gone = std::fs::remove_file(self.path());
        let stream = self.stream.lock().unwrap().take().expect("nobody is connected");
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }

    pub(super) fn told(&self, line: &str) -> usize {
        count(&self.backend, line)
    }

    /// Waits until it has the rings for the `nth` time.
    pub(super) fn runs(&self, nth: usize) {
        wait_until("rings enabled", || self.told("enable 1 true") == nth);
    }
}

pub(super) fn bind(path: &Path) -> UnixListener {
    UnixListener::bind(path).unwrap()
}
