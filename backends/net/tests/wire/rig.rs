//! A device process on a TAP, with a driver attached.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use atoll_driver::{
    Buffer, EVENT_IDX, FrontEnd, INDIRECT_DESC, Memory, NetHeader, Process, Queue, TIMEOUT,
    VERSION_1,
};
use tempfile::TempDir;

use crate::network::{self, Wiretap};

pub(crate) const CSUM: u64 = 1 << 0;
pub(crate) const GUEST_CSUM: u64 = 1 << 1;
pub(crate) const GUEST_TSO4: u64 = 1 << 7;
pub(crate) const HOST_TSO4: u64 = 1 << 11;
pub(crate) const MRG_RXBUF: u64 = 1 << 15;
/// What a current Linux guest accepts, of what matters here.
pub(crate) const USUAL: u64 =
    VERSION_1 | EVENT_IDX | INDIRECT_DESC | CSUM | GUEST_CSUM | GUEST_TSO4 | HOST_TSO4 | MRG_RXBUF;

pub(crate) const RECEIVE: usize = 0;
pub(crate) const TRANSMIT: usize = 1;

/// Long enough to see that something does not happen.
pub(crate) const MOMENT: Duration = Duration::from_millis(150);

pub(crate) struct Rig {
    pub(crate) process: Process,
    pub(crate) device: FrontEnd,
    pub(crate) receive: Queue,
    pub(crate) transmit: Queue,
    pub(crate) wire: Wiretap,
    pub(crate) socket: PathBuf,
    buffers: HashMap<u16, (u64, u32)>,
    _dir: TempDir,
}

impl Rig {
    /// Serves a new TAP to a driver that accepts `features`. `None` where that can't be had.
    pub(crate) fn start(features: u64) -> Option<Self> {
        network::enter()?;
        Some(Self::serve(features, &["--tap=tap0".into()]))
    }

    /// Serves what `args` name, in a network that was entered.
    pub(crate) fn serve(features: u64, args: &[String]) -> Self {
        Self::serve_on(network::TAP, features, args)
    }

    /// As [`Rig::serve`], with packets seen and sent at `interface`.
    pub(crate) fn serve_on(interface: &str, features: u64, args: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("net.sock");
        let process = Process::spawn(
            env!("CARGO_BIN_EXE_atoll-net"),
            [format!("--socket-path={}", socket.display())].iter().chain(args),
        )
        .unwrap();
        let (device, receive, transmit) = attach(&socket, features);
        let wire = Wiretap::on(interface);
        let buffers = HashMap::new();
        Self { process, device, receive, transmit, wire, socket, buffers, _dir: dir }
    }

    /// The front-end leaves, and another one comes.
    pub(crate) fn reattach(&mut self, features: u64) {
        self.device.disconnect();
        let (device, receive, transmit) = attach(&self.socket, features);
        (self.device, self.receive, self.transmit) = (device, receive, transmit);
        self.buffers.clear();
    }

    pub(crate) fn memory(&self) -> Memory {
        self.device.memory().clone()
    }

    /// Gives the device `count` receive buffers of `len` bytes.
    pub(crate) fn post(&mut self, count: usize, len: u32) {
        for _ in 0..count {
            let address = self.memory().allocate(len as usize, 2).unwrap();
            let head = self.receive.add(&[Buffer::writable(address, len)]).unwrap();
            self.buffers.insert(head, (address, len));
        }
        self.receive.publish().unwrap();
    }

    /// The next packet that the device gives, from all the buffers it fills.
    pub(crate) fn next_packet(&mut self) -> (NetHeader, Vec<u8>) {
        let first = self.take_buffer();
        let (header, _) = NetHeader::split(&first).expect("a header");
        let mut packet = first;
        for _ in 1..header.num_buffers {
            // The device must have published all of them with the first.
            let used = self.receive.take_used().unwrap().expect("the packet's other buffers");
            packet.extend(self.filled(used.head, used.len));
        }
        (header, packet.split_off(atoll_driver::NET_HEADER))
    }

    /// The next packet of one buffer, if there is one in time.
    pub(crate) fn packet_within(&mut self, timeout: Duration) -> Option<(NetHeader, Vec<u8>)> {
        let used = self.receive.wait(timeout).ok()?;
        let packet = self.filled(used.head, used.len);
        let (header, frame) = NetHeader::split(&packet).expect("a header");
        Some((header, frame.to_vec()))
    }

    fn take_buffer(&mut self) -> Vec<u8> {
        let used = self.receive.wait(TIMEOUT).unwrap();
        self.filled(used.head, used.len)
    }

    fn filled(&mut self, head: u16, len: u32) -> Vec<u8> {
        let (address, room) = self.buffers.remove(&head).expect("a buffer of ours");
        assert!(len <= room, "{len} bytes in a buffer of {room}");
        self.memory().get(address, len as usize).unwrap()
    }

    /// Sends a packet as the guest and waits until the device has taken it.
    pub(crate) fn send(&mut self, header: NetHeader, frame: &[u8]) {
        let packet = [header.to_bytes().as_slice(), frame].concat();
        let address = self.memory().put(&packet).unwrap();
        self.transmit.submit(&[Buffer::readable(address, packet.len() as u32)]).unwrap();
        self.transmit.wait(TIMEOUT).unwrap();
    }

    /// Both directions still work.
    pub(crate) fn check_alive(&mut self) {
        let to_host = network::frame(network::HOST_MAC, network::GUEST_MAC, b"are you there?");
        self.send(NetHeader::default(), &to_host);
        assert_eq!(self.wire.receive(TIMEOUT).as_deref(), Some(to_host.as_slice()));
        if self.receive.outstanding() == 0 {
            self.post(1, 2048);
        }
        let to_guest = network::frame(network::GUEST_MAC, network::HOST_MAC, b"yes, I am here");
        self.wire.send(&to_guest);
        // A bridge has things to say of its own.
        let experiment = |frame: &[u8]| frame[12..14] == network::EXPERIMENT.to_be_bytes();
        let mut heard = self.next_packet().1;
        while !experiment(&heard) {
            self.post(1, 2048);
            heard = self.next_packet().1;
        }
        assert_eq!(heard, to_guest);
    }
}

fn attach(socket: &std::path::Path, features: u64) -> (FrontEnd, Queue, Queue) {
    let mut device = FrontEnd::connect(socket, Memory::new(64 << 20).unwrap()).unwrap();
    let accepted = device.negotiate(features).unwrap();
    assert_eq!(accepted & features, features, "all are offered");
    let receive = device.start_queue(RECEIVE, 512).unwrap();
    let transmit = device.start_queue(TRANSMIT, 256).unwrap();
    (device, receive, transmit)
}
