//! The driver's end of the control queue.

use atoll_driver::{Buffer, FrontEnd, Memory, Queue, TIMEOUT};

pub(crate) const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
pub(crate) const CTRL_VQ: u64 = 1 << 17;
pub(crate) const CTRL_RX: u64 = 1 << 18;
pub(crate) const CTRL_VLAN: u64 = 1 << 19;
pub(crate) const CTRL_RX_EXTRA: u64 = 1 << 20;
pub(crate) const GUEST_ANNOUNCE: u64 = 1 << 21;
pub(crate) const MQ: u64 = 1 << 22;
pub(crate) const CTRL_MAC_ADDR: u64 = 1 << 23;
/// All that is asked for on the queue, but for MQ.
pub(crate) const CONTROL: u64 = CTRL_GUEST_OFFLOADS
    | CTRL_VQ
    | CTRL_RX
    | CTRL_VLAN
    | CTRL_RX_EXTRA
    | GUEST_ANNOUNCE
    | CTRL_MAC_ADDR;

pub(crate) const OK: u8 = 0;
pub(crate) const ERR: u8 = 1;

pub(crate) struct Line {
    pub(crate) queue: Queue,
    memory: Memory,
}

impl Line {
    /// Starts the queue.
    pub(crate) fn open(device: &mut FrontEnd, index: usize) -> Self {
        let queue = device.start_queue(index, 64).unwrap();
        Self { queue, memory: device.memory().clone() }
    }

    /// Sends a message; what the device answers.
    pub(crate) fn ask(&mut self, message: &[u8]) -> u8 {
        let at = self.memory.put(message).unwrap();
        // As Linux does it: the class and command apart from what belongs to them.
        let (head, data) = message.split_at(message.len().min(2));
        let answer = self.memory.put(&[0xaa]).unwrap();
        let mut buffers = vec![Buffer::readable(at, head.len() as u32)];
        if !data.is_empty() {
            buffers.push(Buffer::readable(at + 2, data.len() as u32));
        }
        buffers.push(Buffer::writable(answer, 1));
        self.queue.submit(&buffers).unwrap();
        assert_eq!(self.queue.wait(TIMEOUT).unwrap().len, 1, "an answer to {message:?}");
        self.memory.get(answer, 1).unwrap()[0]
    }
}
