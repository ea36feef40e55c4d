//! What a bus promises.

use std::sync::Mutex;

use super::*;

/// Remembers writes and reads back the offset.
#[derive(Default)]
struct Probe(Mutex<Vec<(u64, Vec<u8>)>>);

impl BusDevice for Probe {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
    }
    fn write(&self, offset: u64, data: &[u8]) {
        self.0.lock().unwrap().push((offset, data.to_vec()));
    }
}

fn read(bus: &Bus, address: u64) -> u8 {
    let mut byte = [0];
    bus.read(address, &mut byte);
    byte[0]
}

#[test]
fn accesses_reach_the_device_with_the_offset_in_its_range() {
    let bus = Bus::new();
    let probe = Arc::new(Probe::default());
    bus.insert("probe", 0x100, 0x10, probe.clone()).unwrap();
    assert_eq!(read(&bus, 0x10f), 0xf);
    bus.write(0x104, &[1, 2]);
    assert_eq!(*probe.0.lock().unwrap(), [(4, vec![1, 2])]);
}

#[test]
fn nobody_home_reads_ones_and_swallows_writes() {
    let bus = Bus::new();
    let probe = Arc::new(Probe::default());
    bus.insert("probe", 0x100, 0x10, probe.clone()).unwrap();
    assert_eq!(read(&bus, 0xff), 0xff);
    assert_eq!(read(&bus, 0x110), 0xff);
    // An access that begins inside and ends outside belongs to nobody.
    bus.write(0x10f, &[1, 2]);
    bus.write(u64::MAX, &[1, 2]);
    assert!(probe.0.lock().unwrap().is_empty());
}

#[test]
fn overlapping_empty_and_wrapping_ranges_are_refused() {
    let bus = Bus::new();
    let probe = Arc::new(Probe::default());
    bus.insert("probe", 0x100, 0x10, probe.clone()).unwrap();
    for (start, len) in
        [(0x100, 1), (0xf1, 0x10), (0x10f, 1), (0x80, 0x1000), (0, 0), (u64::MAX, 2)]
    {
        assert!(bus.insert("other", start, len, probe.clone()).is_err(), "{start:#x}+{len:#x}");
    }
    bus.insert("before", 0xf0, 0x10, probe.clone()).unwrap();
    bus.insert("after", 0x110, 0x10, probe).unwrap();
}

#[test]
fn a_range_moves_by_remove_and_insert() {
    let bus = Bus::new();
    let probe = Arc::new(Probe::default());
    bus.insert("probe", 0x100, 0x10, probe.clone()).unwrap();
    bus.remove(0x100);
    bus.insert("probe", 0x108, 0x10, probe).unwrap();
    assert_eq!(read(&bus, 0x100), 0xff);
    assert_eq!(read(&bus, 0x117), 0xf);
}
