//! `--port`: further ports beside the console, and the control queues that tell of them (virtio 1.3
//! §5.3.6).

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use atoll_driver::{Buffer, FrontEnd, Memory, Queue, TIMEOUT, VERSION_1};

use crate::rig::{MOMENT, Rig, connect};

const F_MULTIPORT: u64 = 1 << 1;
const CONTROL_RECEIVE: usize = 2;
const CONTROL_TRANSMIT: usize = 3;
const PORT_RECEIVE: usize = 4;
const PORT_TRANSMIT: usize = 5;
const ROOM: u32 = 512;

pub(crate) const DEVICE_READY: u16 = 0;
pub(crate) const DEVICE_ADD: u16 = 1;
pub(crate) const PORT_READY: u16 = 3;
pub(crate) const CONSOLE_PORT: u16 = 4;
pub(crate) const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// A driver that uses the first named port.
pub(crate) struct Driver {
    pub(crate) device: FrontEnd,
    heard: Listening,
    said: Queue,
    keys: Listening,
    output: Queue,
}

/// A queue with a single buffer for what the device says.
struct Listening {
    queue: Queue,
    room: u64,
    posted: bool,
}

impl Listening {
    fn new(queue: Queue, memory: &Memory) -> Self {
        let room = memory.allocate(ROOM as usize, 1).unwrap();
        let mut listening = Self { queue, room, posted: false };
        listening.post();
        listening
    }

    fn post(&mut self) {
        if !std::mem::replace(&mut self.posted, true) {
            self.queue.submit(&[Buffer::writable(self.room, ROOM)]).unwrap();
        }
    }

    fn next(&mut self, memory: &Memory) -> Vec<u8> {
        self.post();
        let used = self.queue.wait(TIMEOUT).unwrap();
        self.posted = false;
        memory.get(self.room, used.len as usize).unwrap()
    }
}

fn start() -> Rig {
    Rig::start(|dir| {
        vec![
            format!("--file={}", dir.join("log").display()),
            format!("--port=agent.0:unix={}", dir.join("agent").display()),
        ]
    })
}

fn negotiated(rig: &Rig, memory: Memory) -> FrontEnd {
    rig.guest.device.disconnect();
    let mut device = FrontEnd::connect(rig.path("front-end.sock"), memory).unwrap();
    device.negotiate(VERSION_1 | F_MULTIPORT).unwrap();
    assert_eq!(device.features() & F_MULTIPORT, F_MULTIPORT);
    device
}

impl Driver {
    /// Starts the queues, in an order that no driver has.
    pub(crate) fn attach(rig: &Rig) -> Self {
        let mut device = negotiated(rig, Memory::new(1 << 20).unwrap());
        let output = device.start_queue(PORT_TRANSMIT, 16).unwrap();
        let keys = device.start_queue(PORT_RECEIVE, 16).unwrap();
        let said = device.start_queue(CONTROL_TRANSMIT, 16).unwrap();
        let heard = device.start_queue(CONTROL_RECEIVE, 16).unwrap();
        let memory = device.memory().clone();
        let (heard, keys) = (Listening::new(heard, &memory), Listening::new(keys, &memory));
        Self { device, heard, said, keys, output }
    }

    /// The same driver, with whoever serves the socket now.
    fn reattach(&mut self, rig: &Rig) {
        self.device.disconnect();
        self.device = negotiated(rig, self.device.memory().clone());
        for queue in [&self.output, &self.keys.queue, &self.said, &self.heard.queue] {
            // All chains are completed, but for one that waits for words.
            let used = queue.ring().used_index().unwrap();
            self.device.attach(queue, used).unwrap();
        }
    }

    pub(crate) fn say(&mut self, id: u32, event: u16, value: u16) {
        let (event, value) = (event.to_le_bytes(), value.to_le_bytes());
        self.say_bytes(&[&id.to_le_bytes()[..], &event, &value].concat());
    }

    fn say_bytes(&mut self, bytes: &[u8]) {
        let address = self.device.memory().put(bytes).unwrap();
        self.said.submit(&[Buffer::readable(address, bytes.len() as u32)]).unwrap();
        self.said.wait(TIMEOUT).unwrap();
    }

    /// The next message: port, event, value, payload.
    pub(crate) fn hear(&mut self) -> (u32, u16, u16, Vec<u8>) {
        let message = self.heard.next(self.device.memory());
        self.heard.post();
        let [i0, i1, i2, i3, e0, e1, v0, v1] = *message.first_chunk().unwrap();
        let (event, value) = (u16::from_le_bytes([e0, e1]), u16::from_le_bytes([v0, v1]));
        (u32::from_le_bytes([i0, i1, i2, i3]), event, value, message[8..].to_vec())
    }

    /// Gets to know the ports as Linux does.
    fn greet(&mut self) {
        self.say(0, DEVICE_READY, 1);
        assert_eq!(self.hear(), (0, DEVICE_ADD, 1, vec![]));
        assert_eq!(self.hear(), (1, DEVICE_ADD, 1, vec![]));
        self.say(0, PORT_READY, 1);
        assert_eq!(self.hear(), (0, CONSOLE_PORT, 1, vec![]));
        assert_eq!(self.hear(), (0, PORT_OPEN, 1, vec![]));
        self.say(1, PORT_READY, 1);
        assert_eq!(self.hear(), (1, PORT_NAME, 1, b"agent.0".to_vec()));
    }

    fn print(&mut self, bytes: &[u8]) {
        let address = self.device.memory().put(bytes).unwrap();
        self.output.submit(&[Buffer::readable(address, bytes.len() as u32)]).unwrap();
        self.output.wait(TIMEOUT).unwrap();
    }

    fn read(&mut self, len: usize) -> Vec<u8> {
        let mut read = Vec::new();
        while read.len() < len {
            read.extend(self.keys.next(self.device.memory()));
            self.keys.post();
        }
        read
    }
}

fn agent(rig: &Rig) -> PathBuf {
    rig.path("agent")
}

/// A program outside asks, and the agent inside answers. The program is attached until what is returned
/// is dropped.
fn assert_converses(rig: &Rig, driver: &mut Driver) -> UnixStream {
    let mut outside = connect(&agent(rig));
    outside.write_all(b"ping\n").unwrap();
    assert_eq!(driver.read(5), b"ping\n");
    driver.print(b"pong\n");
    let mut answer = [0; 5];
    outside.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong\n");
    outside
}

#[test]
fn a_port_is_named_and_carries_bytes_both_ways() {
    let mut rig = start();
    let mut driver = Driver::attach(&rig);
    assert_eq!(driver.device.config(4, 4).unwrap(), 2_u32.to_le_bytes(), "max_nr_ports");
    driver.greet();
    assert_eq!(driver.hear(), (1, PORT_OPEN, 0, vec![]), "nobody is attached");
    driver.say(1, PORT_OPEN, 1);
    assert_converses(&rig, &mut driver);
    rig.terminate();
}

#[test]
fn the_guest_hears_who_comes_and_goes() {
    let rig = start();
    let mut driver = Driver::attach(&rig);
    driver.greet();
    assert_eq!(driver.hear(), (1, PORT_OPEN, 0, vec![]));
    for _ in 0..3 {
        let outside = connect(&agent(&rig));
        assert_eq!(driver.hear(), (1, PORT_OPEN, 1, vec![]));
        drop(outside);
        assert_eq!(driver.hear(), (1, PORT_OPEN, 0, vec![]));
    }
}

#[test]
fn what_is_typed_waits_until_the_guest_opens_the_port() {
    let rig = start();
    let mut driver = Driver::attach(&rig);
    driver.greet();
    assert_eq!(driver.hear(), (1, PORT_OPEN, 0, vec![]));
    let mut outside = connect(&agent(&rig));
    assert_eq!(driver.hear(), (1, PORT_OPEN, 1, vec![]));
    for round in [&b"first"[..], b"again"] {
        outside.write_all(round).unwrap();
        assert!(driver.keys.queue.wait(MOMENT).is_err(), "Linux would drop it");
        driver.say(1, PORT_OPEN, 1);
        assert_eq!(driver.read(5), round);
        driver.say(1, PORT_OPEN, 0);
    }
}

#[test]
fn a_driver_that_takes_no_ports_has_the_console_alone() {
    let mut rig = start();
    rig.guest.print(b"alone");
    rig.terminate();
    assert_eq!(std::fs::read(rig.path("log")).unwrap(), b"alone");
}

#[test]
fn a_port_goes_on_with_a_process_that_never_heard_of_it() {
    let rig = start();
    let mut driver = Driver::attach(&rig);
    driver.greet();
    assert_eq!(driver.hear(), (1, PORT_OPEN, 0, vec![]));
    driver.say(1, PORT_OPEN, 1);
    for _ in 0..3 {
        // To forget the front-end is what a new process and this one have in common.
        driver.reattach(&rig);
        assert_eq!(driver.hear(), (0, DEVICE_ADD, 1, vec![]));
        assert_eq!(driver.hear(), (0, PORT_OPEN, 1, vec![]));
        assert_eq!(driver.hear(), (1, DEVICE_ADD, 1, vec![]));
        assert_eq!(driver.hear(), (1, PORT_OPEN, 0, vec![]));
        let outside = assert_converses(&rig, &mut driver);
        // One who left before the guest was told of him would not be told of.
        assert_eq!(driver.hear(), (1, PORT_OPEN, 1, vec![]));
        drop(outside);
        assert_eq!(driver.hear(), (1, PORT_OPEN, 0, vec![]));
    }
}

#[test]
fn control_messages_that_make_no_sense_are_passed_over() {
    let rig = start();
    let mut driver = Driver::attach(&rig);
    let address = driver.device.memory().put(&[0xff; 64]).unwrap();
    for nonsense in [&b""[..], b"x", &[0; 7], &[0xff; 8], &[0xff; 64]] {
        if !nonsense.is_empty() {
            driver.say_bytes(nonsense);
        }
    }
    driver.said.submit(&[Buffer::writable(address, 64)]).unwrap();
    assert_eq!(driver.said.wait(TIMEOUT).unwrap().len, 0);
    for event in 0..16 {
        for id in [0, 1, 2, 255, u32::MAX] {
            driver.say(id, event, 0);
            driver.say(id, event, 0xffff);
        }
    }
    // It has begun and ended now, and may begin again.
    driver.greet();
    driver.say(1, PORT_OPEN, 1);
    assert_converses(&rig, &mut driver);
}

#[test]
fn a_flood_that_nobody_listens_to_costs_no_memory() {
    let rig = start();
    let mut driver = Driver::attach(&rig);
    driver.say(0, DEVICE_READY, 1);
    let before = rig.process.anonymous_kib().unwrap();
    for _ in 0..2000 {
        driver.say(0, PORT_READY, 1);
        driver.say(1, PORT_READY, 1);
    }
    let after = rig.process.anonymous_kib().unwrap();
    assert!(after <= before + 64, "from {before} to {after} KiB");
}

#[test]
fn a_buffer_too_short_for_a_message_comes_back_empty() {
    let rig = start();
    let mut device = negotiated(&rig, Memory::new(1 << 20).unwrap());
    let mut heard = device.start_queue(CONTROL_RECEIVE, 16).unwrap();
    let mut said = device.start_queue(CONTROL_TRANSMIT, 16).unwrap();
    let room = device.memory().allocate(8, 1).unwrap();
    heard.submit(&[Buffer::writable(room, 7)]).unwrap();
    let ready = [0, 0, 0, 0, 0, 0, 1, 0];
    let address = device.memory().put(&ready).unwrap();
    said.submit(&[Buffer::readable(address, 8)]).unwrap();
    assert_eq!(heard.wait(TIMEOUT).unwrap().len, 0);
    heard.submit(&[Buffer::writable(room, 8)]).unwrap();
    assert_eq!(heard.wait(TIMEOUT).unwrap().len, 8, "the next message");
}

#[test]
fn a_port_nobody_reads_does_not_stop_the_guest() {
    let rig = start();
    let mut driver = Driver::attach(&rig);
    driver.greet();
    let address = driver.device.memory().put(&[b'x'; 4096]).unwrap();
    for _ in 0..256 {
        driver.output.submit(&[Buffer::readable(address, 4096)]).unwrap();
        driver.output.wait(TIMEOUT).unwrap();
    }
    let mut outside = connect(&agent(&rig));
    outside.set_read_timeout(Some(MOMENT)).unwrap();
    let mut kept = Vec::new();
    assert_eq!(outside.read_to_end(&mut kept).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!((32 << 10..=512 << 10).contains(&kept.len()), "{} bytes were kept", kept.len());
}
