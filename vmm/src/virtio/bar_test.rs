//! The BAR: registers, device and interrupts together.

use super::super::layout::notify_offset;
use super::super::test_doubles::{Device, Routes, Told};
use super::super::{Activation, Ring};
use super::*;

const STATUS: u64 = 20;
const ISR: u64 = 0x1000;
const CONFIG: u64 = 0x2000;
const TABLE: u64 = 0x4000;
const PENDING: u64 = 0x6000;

fn rig() -> (Arc<Device>, Arc<Routes>, Bar) {
    let device = Device::new(2);
    let routes = Arc::new(Routes::default());
    let bar = Bar::new(device.clone(), routes.clone()).unwrap();
    (device, routes, bar)
}

fn read(bar: &Bar, offset: u64) -> u8 {
    let mut data = [0xaa];
    bar.read(offset, &mut data);
    data[0]
}

fn start(bar: &Bar) {
    bar.write(STATUS, &[1]);
    bar.write(STATUS, &[3]);
    bar.write(8, &1_u32.to_le_bytes());
    bar.write(12, &1_u32.to_le_bytes());
    bar.write(STATUS, &[0xb]);
    bar.write(28, &1_u16.to_le_bytes());
    bar.write(STATUS, &[0xf]);
}

fn told(device: &Device) -> Vec<Told> {
    std::mem::take(&mut *device.told.lock().unwrap())
}

#[test]
fn driver_ok_and_reset_reach_the_device_and_its_answer_ends_the_reset() {
    let (device, _, bar) = rig();
    start(&bar);
    let ring = Ring { index: 0, size: 256, desc: 0, avail: 0, used: 0 };
    let activation = Activation { features: 1 << 32, rings: vec![ring] };
    assert_eq!(told(&device), [Told::Start(activation)]);
    bar.write(STATUS, &[0]);
    assert_eq!(told(&device), [Told::Reset]);
    assert_eq!(read(&bar, STATUS), 0xf);
    device.ports[0].call.signal();
    bar.reset_done();
    assert_eq!(read(&bar, STATUS), 0);
    assert!(!device.ports[0].call.is_signalled(), "a late call is forgotten");
}

#[test]
fn a_reset_takes_the_interrupts_away() {
    let (device, routes, bar) = rig();
    start(&bar);
    bar.write(26, &0_u16.to_le_bytes());
    bar.set_msix_control(1 << 15);
    bar.write(TABLE + 12, &0_u32.to_le_bytes());
    assert!(routes.delivers(&device.ports[0].call).is_some());
    bar.write(STATUS, &[0]);
    assert!(routes.delivers(&device.ports[0].call).is_none());
}

#[test]
fn a_configuration_change_signals_the_configuration_vector() {
    let (_, _, bar) = rig();
    start(&bar);
    bar.write(16, &2_u16.to_le_bytes());
    bar.set_msix_control(1 << 15);
    bar.config_changed(vec![7; 36], true);
    assert_eq!(read(&bar, PENDING), 0b100);
    assert_eq!(read(&bar, ISR), 2);
    assert_eq!(read(&bar, CONFIG + 35), 7);
    assert_eq!(read(&bar, CONFIG + 36), 0);
}

#[test]
fn a_device_that_fails_says_so_in_its_status() {
    let (_, _, bar) = rig();
    start(&bar);
    bar.needs_reset();
    assert_eq!(read(&bar, STATUS), 0x4f);
}

#[test]
fn a_kick_without_a_doorbell_still_reaches_its_queue() {
    let (device, _, bar) = rig();
    bar.write(notify_offset(1), &[1, 0]);
    assert!(!device.ports[0].kick.is_signalled());
    assert!(device.ports[1].kick.is_signalled());
    bar.write(notify_offset(2), &[2, 0]);
}

#[test]
fn configuration_writes_reach_the_device() {
    let (device, _, bar) = rig();
    bar.write(STATUS, &[3]);
    bar.write(CONFIG + 32, &[1]);
    assert_eq!(told(&device), [Told::Config(32, vec![1])]);
}

#[test]
fn every_byte_of_the_bar_can_be_read_and_written_in_every_width() {
    let (_, _, bar) = rig();
    for offset in 0..super::super::layout::BAR_SIZE {
        for len in [1, 2, 4, 8] {
            let mut data = [0; 8];
            bar.read(offset, &mut data[..len]);
            bar.write(offset, &[0xff; 8][..len]);
        }
    }
}
