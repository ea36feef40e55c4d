//! MSI-X registers.

use super::*;

fn write(msix: &mut Msix, offset: u64, value: u32) -> Option<u16> {
    msix.write_table(offset, &value.to_le_bytes())
}

fn read(msix: &Msix, offset: u64) -> u32 {
    let mut data = [0; 4];
    msix.read_table(offset, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn a_vector_is_live_only_when_nothing_masks_it() {
    let mut msix = Msix::new(2);
    write(&mut msix, 16, 0xfee0_0000);
    write(&mut msix, 20, 1);
    write(&mut msix, 24, 0x41);
    assert_eq!(msix.live(1), None, "off");
    msix.set_control(CONTROL_ENABLE);
    assert_eq!(msix.live(1), None, "masked after reset");
    assert_eq!(write(&mut msix, 28, 0), Some(1));
    assert_eq!(msix.live(1), Some(Msi { address: 0x1_fee0_0000, data: 0x41 }));
    msix.set_control(CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
    assert_eq!(msix.live(1), None, "function masked");
    msix.set_control(CONTROL_ENABLE);
    write(&mut msix, 28, 0xffff_ffff);
    assert_eq!(msix.live(1), None, "vector masked");
    assert_eq!(msix.live(2), None, "no such vector");
}

#[test]
fn the_table_reads_back_what_was_written_and_reserved_bits_as_zero() {
    let mut msix = Msix::new(1);
    assert_eq!(read(&msix, 12), 1);
    write(&mut msix, 12, 0xffff_fffe);
    assert_eq!(read(&msix, 12), 0);
    msix.write_table(0, &0x1122_3344_5566_7788_u64.to_le_bytes());
    assert_eq!((read(&msix, 0), read(&msix, 4)), (0x5566_7788, 0x1122_3344));
    let mut qword = [0; 8];
    msix.read_table(0, &mut qword);
    assert_eq!(u64::from_le_bytes(qword), 0x1122_3344_5566_7788);
    let mut byte = [0];
    msix.read_table(1, &mut byte);
    assert_eq!(byte, [0x77]);
}

#[test]
fn undefined_accesses_change_nothing() {
    let mut msix = Msix::new(1);
    let odd: [(u64, &[u8]); 6] = [
        (0, &[1]),
        (0, &[1, 2]),
        (2, &[1, 2, 3, 4]),
        (4, &[1; 8]),
        (16, &[1; 4]),
        (u64::MAX - 3, &[1; 4]),
    ];
    for (offset, data) in odd {
        assert_eq!(msix.write_table(offset, data), None, "{offset:#x} {data:?}");
    }
    assert_eq!((read(&msix, 0), read(&msix, 8), read(&msix, 16)), (0, 0, 0));
}
