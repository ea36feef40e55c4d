//! What a kernel's first instruction finds.

use super::*;

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()
}

fn read(memory: &GuestMemoryMmap, address: u64) -> u64 {
    memory.read_obj(GuestAddress(address)).unwrap()
}

fn entered(protocol: Protocol) -> (kvm_regs, kvm_sregs) {
    let entry = EntryPoint { protocol, address: 0x100_0200, boot_data: 0x7000 };
    let (mut regs, mut sregs) = (kvm_regs::default(), kvm_sregs::default());
    entry.set_regs(&mut regs);
    entry.set_sregs(&mut sregs);
    (regs, sregs)
}

#[test]
fn pvh_enters_flat_32_bit_mode_with_the_start_info_in_ebx() {
    let (regs, sregs) = entered(Protocol::Pvh);
    assert_eq!((regs.rip, regs.rbx, regs.rflags), (0x100_0200, 0x7000, 2));
    assert_eq!((sregs.cr0 & (CR0_PE | CR0_PG), sregs.cr4, sregs.efer), (CR0_PE, 0, 0));
    assert_eq!((sregs.cs.db, sregs.cs.l, sregs.cs.base, sregs.cs.limit), (1, 0, 0, u32::MAX));
}

#[test]
fn linux64_enters_long_mode_with_boot_params_in_rsi() {
    let (regs, sregs) = entered(Protocol::Linux64);
    assert_eq!((regs.rip, regs.rsi, regs.rflags), (0x100_0200, 0x7000, 2));
    assert_eq!(sregs.cr0 & (CR0_PE | CR0_PG), CR0_PE | CR0_PG);
    assert_eq!((sregs.cr3, sregs.cr4), (layout::PAGE_TABLES, CR4_PAE));
    assert_eq!(sregs.efer, EFER_LME | EFER_LMA);
    assert_eq!((sregs.cs.selector, sregs.ds.selector), (0x10, 0x18));
    assert_eq!((sregs.cs.db, sregs.cs.l), (0, 1));
}

#[test]
fn the_descriptor_table_says_what_the_registers_say() {
    let memory = memory();
    write_boot_tables(&memory, Protocol::Pvh).unwrap();
    assert_eq!(read(&memory, layout::GDT), 0);
    assert_eq!(read(&memory, layout::GDT + 0x10), 0x00cf_9b00_0000_ffff);
    assert_eq!(read(&memory, layout::GDT + 0x18), 0x00cf_9300_0000_ffff);
    assert_eq!(read(&memory, layout::GDT + 0x20), 0x0000_8b00_0000_0067);
    write_boot_tables(&memory, Protocol::Linux64).unwrap();
    assert_eq!(read(&memory, layout::GDT + 0x10), 0x00af_9b00_0000_ffff);
}

#[test]
fn the_first_four_gib_are_mapped_to_themselves() {
    let memory = memory();
    write_boot_tables(&memory, Protocol::Linux64).unwrap();
    for address in [0, 0x7000, 0x100_0200, 0xc000_0000, 0xffff_ffff] {
        let mut table = layout::PAGE_TABLES;
        for shift in [39, 30, 21] {
            let entry = read(&memory, table + (address >> shift & 0x1ff) * 8);
            assert_eq!(entry & PRESENT_WRITABLE, PRESENT_WRITABLE, "{address:#x}");
            assert_eq!(entry & LARGE != 0, shift == 21);
            table = entry & 0x000f_ffff_ffff_f000;
        }
        assert_eq!(table, address & !0x1f_ffff);
    }
}
