//! The bus: who answers where.

use super::*;

struct Dummy {
    bar: Option<u64>,
    placed: Mutex<Option<u64>>,
}

impl Dummy {
    fn new(bar: Option<u64>) -> Arc<Self> {
        Arc::new(Self { bar, placed: Mutex::new(None) })
    }
}

impl PciFunction for Dummy {
    fn read_config(&self, _offset: u8, data: &mut [u8]) {
        data.fill(0x11);
    }
    fn write_config(&self, _offset: u8, _data: &[u8]) {}
    fn bar_size(&self) -> Option<u64> {
        self.bar
    }
    fn place_bar(&self, address: u64) {
        *self.placed.lock().unwrap() = Some(address);
    }
}

fn segment() -> Arc<PciSegment> {
    PciSegment::new(Windows { low: 0xc000_0000..0xc001_8000, high: 0x40_0000_0000..0x41_0000_0000 })
}

fn read(segment: &PciSegment, devfn: u8, offset: u8, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    segment.read(Address::from_devfn(devfn), offset, &mut data);
    data
}

#[test]
fn the_host_bridge_is_first_and_has_no_bar() {
    let segment = segment();
    assert_eq!(read(&segment, 0, 0, 4), [0x36, 0x1b, 0x08, 0x00]);
    assert_eq!(read(&segment, 0, 0xb, 1), [0x06], "a bridge");
    assert_eq!(read(&segment, 8, 0, 4), [0xff; 4], "nobody there");
}

#[test]
fn bars_are_aligned_to_their_size_low_first_then_high() {
    let segment = segment();
    let functions: Vec<_> =
        [0x1000, 0x8000, 0x8000, 0x8000].into_iter().map(|size| Dummy::new(Some(size))).collect();
    for function in &functions {
        segment.add(function.clone()).unwrap();
    }
    let placed: Vec<_> = functions.iter().map(|f| f.placed.lock().unwrap().unwrap()).collect();
    assert_eq!(placed, [0xc000_0000, 0xc000_8000, 0xc001_0000, 0x40_0000_0000]);
    let error = segment.add(Dummy::new(Some(1 << 40))).unwrap_err();
    assert!(matches!(error, PciError::WindowFull { .. }), "{error}");
}

#[test]
fn every_device_number_is_used_before_second_functions() {
    let segment = segment();
    let mut added = (0..255).map(|_| segment.add(Dummy::new(None)).unwrap().to_string());
    assert_eq!(added.next().unwrap(), "00:01.0");
    assert_eq!(added.nth(29).unwrap(), "00:1f.0");
    // Software looks at second functions only where function 0 says that there are some.
    assert_eq!(read(&segment, 0, 0x0e, 1), [0x00]);
    assert_eq!(added.next().unwrap(), "00:00.1");
    assert_eq!(read(&segment, 0, 0x0e, 1), [0x80]);
    assert_eq!(read(&segment, 0, 0x0c, 4)[2], 0x80);
    assert_eq!(read(&segment, 1, 0x0e, 1), [0x11], "not in function 1 itself");
    assert_eq!(added.count(), 255 - 32);
    assert!(matches!(segment.add(Dummy::new(None)).unwrap_err(), PciError::BusFull(256)));
}
