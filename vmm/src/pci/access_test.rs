//! Both ways to configuration space.

use std::sync::Mutex;

use super::*;
use crate::pci::{PciFunction, Windows};

/// Records writes and reads back the register number.
#[derive(Default)]
struct Probe(Mutex<Vec<(u8, Vec<u8>)>>);

impl PciFunction for Probe {
    fn read_config(&self, offset: u8, data: &mut [u8]) {
        for (byte, register) in data.iter_mut().zip(u16::from(offset)..) {
            *byte = register as u8;
        }
    }
    fn write_config(&self, offset: u8, data: &[u8]) {
        self.0.lock().unwrap().push((offset, data.to_vec()));
    }
    fn bar_size(&self) -> Option<u64> {
        None
    }
    fn place_bar(&self, _address: u64) {}
}

fn bus() -> (Arc<PciSegment>, Arc<Probe>) {
    let segment = PciSegment::new(Windows { low: 0..0, high: 0..0 });
    let probe = Arc::new(Probe::default());
    // Device 1, function 0: devfn 8.
    segment.add(probe.clone()).unwrap();
    (segment, probe)
}

fn read(device: &dyn BusDevice, offset: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0xaa; len];
    device.read(offset, &mut data);
    data
}

#[test]
fn ecam_reaches_the_function_and_the_register() {
    let (segment, probe) = bus();
    let ecam = segment.ecam();
    assert_eq!(read(&*ecam, 0x8010, 4), [0x10, 0x11, 0x12, 0x13]);
    assert_eq!(read(&*ecam, 0x80ff, 1), [0xff]);
    ecam.write(0x8004, &[1, 2]);
    assert_eq!(*probe.0.lock().unwrap(), [(4, vec![1, 2])]);
}

#[test]
fn ecam_is_empty_beyond_the_register_space_the_functions_and_the_bus() {
    let (segment, probe) = bus();
    let ecam = segment.ecam();
    for offset in [0x8100, 0x80fe, 0x9000, ECAM_BUS_SIZE + 0x8000, u64::MAX] {
        assert_eq!(read(&*ecam, offset, 4), [0xff; 4], "{offset:#x}");
        ecam.write(offset, &[0; 4]);
    }
    assert!(probe.0.lock().unwrap().is_empty());
}

#[test]
fn the_ports_reach_the_same_registers() {
    let (segment, probe) = bus();
    let ports = segment.config_ports();
    ports.write(0, &0x8000_0810_u32.to_le_bytes());
    assert_eq!(read(&*ports, 0, 4), 0x8000_0810_u32.to_le_bytes());
    assert_eq!(read(&*ports, 4, 4), [0x10, 0x11, 0x12, 0x13]);
    assert_eq!(read(&*ports, 6, 2), [0x12, 0x13]);
    ports.write(7, &[9]);
    assert_eq!(*probe.0.lock().unwrap(), [(0x13, vec![9])]);
}

#[test]
fn the_ports_answer_only_for_bus_0_and_when_enabled() {
    let (segment, probe) = bus();
    let ports = segment.config_ports();
    for address in [0x0000_0810_u32, 0x8001_0810, 0x8000_1010] {
        ports.write(0, &address.to_le_bytes());
        assert_eq!(read(&*ports, 4, 4), [0xff; 4], "{address:#x}");
        ports.write(4, &[0; 4]);
    }
    assert!(probe.0.lock().unwrap().is_empty());
}

#[test]
fn narrow_accesses_to_the_address_port_are_not_for_us() {
    let (segment, _) = bus();
    let ports = segment.config_ports();
    ports.write(0, &0x8000_0810_u32.to_le_bytes());
    ports.write(0, &[0; 2]);
    // 0xcf9 is the reset control register on other machines.
    ports.write(1, &[6]);
    assert_eq!(read(&*ports, 0, 2), [0xff; 2]);
    assert_eq!(read(&*ports, 0, 4), 0x8000_0810_u32.to_le_bytes());
}
