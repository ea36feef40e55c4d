//! The function on the bus, as firmware and guest drive it.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test, as it should")]

use super::super::test_doubles::{Bells, Device, Routes};
use super::*;

const BASE: u64 = 0xc000_0000;

struct Rig {
    device: Arc<Device>,
    routes: Arc<Routes>,
    bells: Arc<Bells>,
    bus: Arc<Bus>,
    function: Arc<VirtioPci>,
}

fn rig() -> Rig {
    let device = Device::new(2);
    let routes = Arc::new(Routes::default());
    let bells = Arc::new(Bells::default());
    let bus = Arc::new(Bus::new());
    let function = VirtioPci::new(device.clone(), routes.clone(), bells.clone(), &bus).unwrap();
    function.place_bar(BASE);
    Rig { device, routes, bells, bus, function }
}

impl Rig {
    fn config(&self, offset: u8) -> u32 {
        let mut data = [0; 4];
        self.function.read_config(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn decode(&self, on: bool) {
        self.function.write_config(4, &[if on { 6 } else { 0 }, 0]);
    }

    fn move_bar(&self, address: u64) {
        self.function.write_config(0x10, &(address as u32).to_le_bytes());
        self.function.write_config(0x14, &((address >> 32) as u32).to_le_bytes());
    }

    fn bells(&self) -> Vec<u64> {
        self.bells.0.lock().unwrap().iter().copied().collect()
    }

    /// num_queues through the BAR, or ones.
    fn queues_at(&self, base: u64) -> u16 {
        let mut data = [0; 2];
        self.bus.read(base + 18, &mut data);
        u16::from_le_bytes(data)
    }

    /// The capabilities: (offset, ID, virtio cfg_type).
    fn capabilities(&self) -> Vec<(u8, u8, u8)> {
        let mut found = Vec::new();
        let mut at = self.config(0x34) as u8;
        while at != 0 {
            let dword = self.config(at);
            found.push((at, dword as u8, (dword >> 24) as u8));
            at = (dword >> 8) as u8;
        }
        found
    }
}

#[test]
fn it_is_a_modern_virtio_block_device() {
    let rig = rig();
    assert_eq!(rig.config(0), 0x1042_1af4);
    assert_eq!(rig.config(8), 0x0180_0001);
    assert_eq!(rig.config(0x3c) >> 8, 0, "no INTx pin");
    let kinds: Vec<_> = rig.capabilities().iter().map(|&(_, id, kind)| (id, kind)).collect();
    let virtio: Vec<u8> = kinds.iter().filter(|(id, _)| *id == 9).map(|&(_, kind)| kind).collect();
    assert_eq!(virtio, [1, 3, 2, 4, 5]);
    assert_eq!(kinds.iter().filter(|(id, _)| *id == 0x11).count(), 1);
}

#[test]
fn msix_has_a_vector_for_each_queue_and_one_more() {
    let rig = rig();
    let (at, ..) = *rig.capabilities().iter().find(|(_, id, _)| *id == 0x11).unwrap();
    assert_eq!((rig.config(at) >> 16) & 0x7ff, 2, "three vectors, less one");
    assert_eq!(rig.config(at + 4), 0x4000);
    assert_eq!(rig.config(at + 8), 0x6000);
}

#[test]
fn the_bar_answers_while_decoding_is_on_and_follows_the_guest() {
    let rig = rig();
    assert_eq!(rig.queues_at(BASE), 0xffff);
    assert!(rig.bells().is_empty());
    rig.decode(true);
    assert_eq!(rig.queues_at(BASE), 2);
    assert_eq!(rig.bells(), [BASE + 0x3000, BASE + 0x3004]);
    rig.move_bar(0x50_0000_0000);
    assert_eq!(rig.queues_at(BASE), 0xffff);
    assert_eq!(rig.queues_at(0x50_0000_0000), 2);
    assert_eq!(rig.bells(), [0x50_0000_3000, 0x50_0000_3004]);
    rig.decode(false);
    assert_eq!(rig.queues_at(0x50_0000_0000), 0xffff);
    assert!(rig.bells().is_empty());
}

#[test]
fn sizing_the_bar_while_decoding_is_on_brings_it_back() {
    let rig = rig();
    rig.decode(true);
    rig.move_bar(u64::MAX);
    assert_eq!(rig.config(0x10), 0xffff_8004);
    rig.move_bar(BASE);
    assert_eq!(rig.queues_at(BASE), 2);
    assert_eq!(rig.bells().len(), 2);
}

#[test]
fn a_bar_moved_onto_another_device_answers_nowhere_until_it_moves_on() {
    let rig = rig();
    let other = VirtioPci::new(Device::new(1), rig.routes.clone(), rig.bells.clone(), &rig.bus);
    let other = other.unwrap();
    other.place_bar(BASE);
    other.write_config(4, &[6, 0]);
    rig.decode(true);
    assert_eq!(rig.queues_at(BASE), 1);
    rig.move_bar(BASE + 0x8000);
    assert_eq!(rig.queues_at(BASE + 0x8000), 2);
}

#[test]
fn writing_message_control_in_any_width_attaches_interrupts() {
    for (offset, data) in [(2, &[0x00_u8, 0x80][..]), (3, &[0x80][..]), (0, &[0, 0, 0, 0x80][..])] {
        let rig = rig();
        rig.decode(true);
        rig.bus.write(BASE + 26, &[0, 0]);
        rig.bus.write(BASE + 0x400c, &[0; 4]);
        let (at, ..) = *rig.capabilities().iter().find(|(_, id, _)| *id == 0x11).unwrap();
        rig.function.write_config(at + offset, data);
        assert!(rig.routes.delivers(&rig.device.ports[0].call).is_some(), "{offset}");
    }
}

#[test]
fn the_bar_can_be_reached_through_configuration_space() {
    let rig = rig();
    let (at, ..) = *rig.capabilities().iter().find(|&&(_, id, kind)| (id, kind) == (9, 5)).unwrap();
    rig.function.write_config(at + 8, &18_u32.to_le_bytes());
    rig.function.write_config(at + 12, &2_u32.to_le_bytes());
    let mut data = [0; 2];
    rig.function.read_config(at + 16, &mut data);
    assert_eq!(data, [2, 0]);
    // queue_select, written and read back.
    rig.function.write_config(at + 8, &22_u32.to_le_bytes());
    rig.function.write_config(at + 16, &[1, 0, 0, 0]);
    rig.function.read_config(at + 16, &mut data);
    assert_eq!(data, [1, 0]);
    // Outside the BAR, another BAR, odd widths and alignments: nothing happens.
    for (bar, offset, width) in [(0, u32::MAX, 1), (1, 20, 1), (0, 20, 3), (0, 21, 2), (0, 20, 0)] {
        rig.function.write_config(at + 4, &[bar]);
        rig.function.write_config(at + 8, &u32::to_le_bytes(offset));
        rig.function.write_config(at + 12, &u32::to_le_bytes(width));
        rig.function.write_config(at + 16, &[3; 4]);
        assert_eq!(rig.config(at), rig.config(at));
    }
    rig.decode(true);
    let mut status = [0];
    rig.bus.read(BASE + 20, &mut status);
    assert_eq!(status, [0]);
}

#[test]
fn configuration_space_survives_any_write_anywhere() {
    let rig = rig();
    for offset in 0..=255_u8 {
        for len in 1..=4 {
            rig.function.write_config(offset, &[0xff; 4][..len]);
            rig.function.read_config(offset, &mut [0; 4][..len]);
            rig.function.write_config(offset, &[0; 4][..len]);
        }
    }
}

#[test]
fn dropping_it_leaves_nothing_behind() {
    let rig = rig();
    rig.decode(true);
    let events = rig.device.events();
    drop(events);
    drop(rig.function);
    // The bus held the BAR; with the range gone the interrupts are free as well.
    assert_eq!(rig.bells.0.lock().unwrap().len(), 0);
    assert!(rig.routes.allocated.lock().unwrap().is_empty());
    assert!(rig.device.events.lock().unwrap().as_ref().unwrap().upgrade().is_none());
}
