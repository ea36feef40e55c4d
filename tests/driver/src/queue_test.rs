use std::time::Duration;

use super::{Buffer, Queue};
use crate::{EVENT_IDX, Error, Memory};

const SIZE: u16 = 4;

struct Device {
    memory: Memory,
    used: u64,
    index: u16,
}

impl Device {
    /// Uses a head, as a device does.
    fn complete(&mut self, head: u32, len: u32) {
        let slot = u64::from(self.index % SIZE);
        let entry = [head.to_le_bytes(), len.to_le_bytes()].concat();
        self.memory.write(self.used + 4 + 8 * slot, &entry).unwrap();
        self.index = self.index.wrapping_add(1);
        self.memory.store(self.used + 2, self.index).unwrap();
    }

    /// Says at which available index it wants a kick.
    fn want_kick_at(&self, index: u16) {
        self.memory.store(self.used + 4 + 8 * u64::from(SIZE), index).unwrap();
    }
}

fn queue(features: u64) -> (Queue, Device) {
    let memory = Memory::new(1 << 16).unwrap();
    let queue = Queue::new(&memory, 0, SIZE, features).unwrap();
    let [_, _, used] = queue.ring().addresses();
    (queue, Device { memory, used, index: 0 })
}

fn kicked(queue: &Queue) -> bool {
    queue.kick.read().is_ok()
}

#[test]
fn a_chain_is_laid_out_as_the_specification_says() {
    let (mut queue, device) = queue(0);
    let head =
        queue.submit(&[Buffer::readable(0x2_0000, 16), Buffer::writable(0x3_0000, 512)]).unwrap();
    let [descriptors, avail, _] = queue.ring().addresses();
    let first = device.memory.get(descriptors + 16 * u64::from(head), 16).unwrap();
    assert_eq!(first[..8], 0x2_0000_u64.to_le_bytes());
    assert_eq!((first[8], first[12]), (16, 1), "readable, and it goes on");
    let next = u64::from(first[14]);
    let second = device.memory.get(descriptors + 16 * next, 16).unwrap();
    assert_eq!(second[..8], 0x3_0000_u64.to_le_bytes());
    assert_eq!((second[9], second[12]), (2, 2), "writable, and the last");
    assert_eq!(device.memory.get(avail + 2, 4).unwrap(), [1, 0, head as u8, 0]);
}

#[test]
fn descriptors_are_free_again_once_used() {
    let (mut queue, mut device) = queue(0);
    let buffer = Buffer::readable(0x2_0000, 1);
    for _ in 0..3 * SIZE {
        let heads = [(); SIZE as usize].map(|()| queue.submit(&[buffer]).unwrap());
        assert!(matches!(queue.submit(&[buffer]), Err(Error::Full { needed: 1, free: 0 })));
        for head in heads {
            device.complete(head.into(), 7);
            let used = queue.wait(Duration::ZERO).unwrap();
            assert_eq!((used.head, used.len), (head, 7));
        }
    }
}

#[test]
fn a_head_that_was_never_given_is_not_believed() {
    let (mut queue, mut device) = queue(0);
    queue.submit(&[Buffer::readable(0x2_0000, 1)]).unwrap();
    device.complete(70_000, 0);
    assert!(matches!(queue.take_used(), Err(Error::NotOutstanding { head: 70_000, .. })));
}

#[test]
fn the_device_is_kicked_where_it_wants_to_be() {
    let (mut queue, mut device) = queue(EVENT_IDX);
    let buffer = Buffer::readable(0x2_0000, 1);
    for (event, expected) in [(0, true), (0, false), (5, false), (3, true)] {
        device.want_kick_at(event);
        let head = queue.submit(&[buffer]).unwrap();
        assert_eq!(kicked(&queue), expected, "event {event}");
        device.complete(head.into(), 0);
        queue.wait(Duration::ZERO).unwrap();
    }
}

#[test]
fn a_silent_device_is_waited_for_in_vain() {
    let (mut queue, _device) = queue(0);
    queue.submit(&[Buffer::readable(0x2_0000, 1)]).unwrap();
    assert!(matches!(queue.wait(Duration::from_millis(20)), Err(Error::Silent { .. })));
}
