//! Configuration registers as software uses them.

use super::*;

const IDS: Ids = Ids {
    vendor: 0x1af4,
    device: 0x1042,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    class: 0x01_80_00,
    revision: 1,
};

fn read32(space: &ConfigSpace, offset: usize) -> u32 {
    let mut data = [0; 4];
    space.read(offset as u8, &mut data);
    u32::from_le_bytes(data)
}

fn write32(space: &mut ConfigSpace, offset: usize, value: u32) {
    space.write(offset as u8, &value.to_le_bytes());
}

#[test]
fn identity_is_where_software_looks_and_can_not_be_changed() {
    let mut space = ConfigSpace::new(&IDS);
    for offset in (0..SIZE).step_by(4) {
        write32(&mut space, offset, 0xffff_ffff);
    }
    assert_eq!(read32(&space, 0x00), 0x1042_1af4);
    assert_eq!(read32(&space, 0x08), 0x0180_0001);
    assert_eq!(read32(&space, 0x2c), 0x1100_1af4);
    assert_eq!(read32(&space, 0x04), 0x0406, "memory, bus master and INTx disable; no status");
    assert_eq!(read32(&space, 0x0c), 0xffff, "header type 0");
    assert_eq!(read32(&space, 0x3c), 0xff, "interrupt line, no pin");
    assert_eq!(read32(&space, 0x10), 0, "no BAR");
}

#[test]
fn a_bar_tells_its_size_and_moves() {
    let mut space = ConfigSpace::new(&IDS);
    space.add_bar(0x8000);
    assert_eq!(read32(&space, 0x10), 0x4);
    write32(&mut space, 0x10, 0xffff_ffff);
    write32(&mut space, 0x14, 0xffff_ffff);
    assert_eq!((read32(&space, 0x10), read32(&space, 0x14)), (0xffff_8004, 0xffff_ffff));
    write32(&mut space, 0x10, 0xc000_1234);
    write32(&mut space, 0x14, 0x1);
    assert_eq!((read32(&space, 0x10), read32(&space, 0x14)), (0xc000_0004, 1));
}

#[test]
fn a_bar_answers_only_while_memory_decoding_is_on() {
    let mut space = ConfigSpace::new(&IDS);
    space.add_bar(0x8000);
    space.place_bar(0x1_c000_0000);
    assert_eq!(space.decoded_bar(), None);
    space.write(COMMAND as u8, &[2]);
    assert_eq!(space.decoded_bar(), Some(0x1_c000_0000));
    space.place_bar(0);
    assert_eq!(space.decoded_bar(), None, "not assigned");
}

#[test]
fn capabilities_form_a_list_that_ends() {
    let mut space = ConfigSpace::new(&IDS);
    assert_eq!(space.add_capability(0x11, &[1, 2], &[0, 0xc0]).unwrap(), 0x40);
    assert_eq!(space.add_capability(0x09, &[9; 14], &[]).unwrap(), 0x44);
    assert_eq!(read32(&space, 0x04) >> 16, u32::from(STATUS_CAPABILITIES));
    assert_eq!(read32(&space, 0x34), 0x40);
    assert_eq!(read32(&space, 0x40), 0x0201_4411);
    assert_eq!(read32(&space, 0x44) & 0xffff, 0x0009, "the last one points nowhere");
    write32(&mut space, 0x40, 0xffff_ffff);
    assert_eq!(read32(&space, 0x40), 0xc201_4411, "only the writable bits change");
}

#[test]
fn a_capability_that_does_not_fit_is_refused() {
    let mut space = ConfigSpace::new(&IDS);
    assert!(space.add_capability(0x09, &[0; 0xbe], &[]).is_ok());
    assert!(space.add_capability(0x09, &[0; 1], &[]).is_err());
}

#[test]
fn accesses_at_the_very_end_stay_inside() {
    let mut space = ConfigSpace::new(&IDS);
    let mut data = [0; 4];
    space.read(0xfe, &mut data);
    assert_eq!(data, [0, 0, 0xff, 0xff]);
    space.write(0xfe, &[1, 2, 3, 4]);
}
