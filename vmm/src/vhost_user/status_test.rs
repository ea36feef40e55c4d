//! What the rings' indices say of a queue.

use std::thread;

use vm_memory::{Bytes, GuestAddress};

use super::super::test_doubles::{memory, ports};
use super::*;

const AVAIL_IDX: u64 = 0x2002;
const USED_IDX: u64 = 0x3002;
/// used_event, behind the available ring's 64 entries.
const USED_EVENT: u64 = 0x2000 + 4 + 2 * 64;

fn record(name: &str, index: u16) -> Record {
    let device_type = DeviceType::by_name(name).unwrap();
    let record = Record::new("dev0".into(), device_type, "wait".into(), memory(), ports(2).into());
    let ring = Ring { index, size: 64, desc: 0x1000, avail: 0x2000, used: 0x3000 };
    let features = 1 << 32 | 1 << VIRTIO_RING_F_EVENT_IDX;
    record.notes().activation = Some(Activation { features, rings: vec![ring] });
    record
}

fn set(record: &Record, at: u64, value: u16) {
    record.memory.write_obj(value, GuestAddress(at)).unwrap();
}

fn look(record: &Record) -> QueueStatus {
    record.status().queues[0].clone()
}

#[test]
fn whoever_has_to_do_the_next_step_owes_it() {
    let disk = record("blk", 1);
    assert_eq!(look(&disk).owes, Owes::Nobody);
    set(&disk, AVAIL_IDX, 3);
    let queue = look(&disk);
    assert_eq!((queue.depth, queue.owes), (3, Owes::Backend));
    set(&disk, USED_IDX, 3);
    let queue = look(&disk);
    assert_eq!((queue.depth, queue.owes), (0, Owes::Guest), "it has not taken the three");
    disk.ports[1].call.signal();
    assert_eq!(look(&disk).owes, Owes::Interrupt);
    disk.ports[1].call.drain();
    set(&disk, USED_EVENT, 3);
    assert_eq!(look(&disk).owes, Owes::Nobody);
}

#[test]
fn buffers_that_lie_ready_are_owed_by_nobody_and_missing_ones_by_the_guest() {
    let net = record("net", 0);
    assert_eq!(look(&net).owes, Owes::Guest);
    set(&net, AVAIL_IDX, 64);
    assert_eq!(look(&net).owes, Owes::Nobody);
}

#[test]
fn the_oldest_request_ages_while_the_used_index_stands_still() {
    let disk = record("blk", 0);
    set(&disk, AVAIL_IDX, 1);
    disk.look_at_queues();
    thread::sleep(Duration::from_millis(30));
    assert!(look(&disk).oldest_ms >= 30);
    set(&disk, AVAIL_IDX, 2);
    assert!(look(&disk).oldest_ms >= 30, "more requests make the oldest no younger");
    set(&disk, USED_IDX, 1);
    assert!(look(&disk).oldest_ms < 30, "another one is the oldest now");
    set(&disk, USED_IDX, 2);
    assert_eq!(look(&disk).oldest_ms, 0);
}

#[test]
fn indices_wrap() {
    let disk = record("blk", 0);
    set(&disk, USED_IDX, 65_535);
    set(&disk, AVAIL_IDX, 1);
    assert_eq!(look(&disk).depth, 2);
}

#[test]
fn features_have_names_and_rings_outside_memory_are_left_out() {
    let disk = record("blk", 0);
    let status = disk.status();
    assert_eq!(status.features, ["VIRTIO_RING_F_EVENT_IDX", "VIRTIO_F_VERSION_1"]);
    disk.notes().activation.as_mut().unwrap().rings[0].used = 1 << 40;
    assert!(disk.status().queues.is_empty());
}
