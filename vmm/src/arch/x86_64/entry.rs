//! The state in which the first vCPU enters a kernel, for each boot protocol.
//!
//! PVH enters in 32-bit protected mode without paging (Xen's `docs/misc/pvh.pandoc`), the 64-bit
//! Linux protocol in long mode with the first 4 GiB mapped to themselves (the kernel's
//! Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::{layout, reset_vector};

/// How a kernel wants to be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Xen's PVH, in 32-bit mode.
    Pvh,
    /// Linux's 64-bit boot protocol.
    Linux64,
}

/// Where the first vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPoint {
    /// In what state.
    pub protocol: Protocol,
    /// The first instruction.
    pub address: u64,
    /// What describes the machine: `hvm_start_info` or `boot_params`.
    pub boot_data: u64,
}

/// Control register and EFER bits (Intel SDM volume 3, §2.5 and §2.2.1).
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS is always one.
const RFLAGS: u64 = 1 << 1;

/// Selectors, which boot.rst fixes as `__BOOT_CS` and `__BOOT_DS`.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

/// Page table entry bits: present, writable, and for a directory's entry a 2 MiB page.
const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const PAGE: u64 = 0x1000;

impl EntryPoint {
    pub(super) fn set_regs(&self, regs: &mut kvm_regs) {
        regs.rip = self.address;
        regs.rflags = RFLAGS;
        match self.protocol {
            Protocol::Pvh => regs.rbx = self.boot_data,
            Protocol::Linux64 => regs.rsi = self.boot_data,
        }
    }

    pub(super) fn set_sregs(&self, sregs: &mut kvm_sregs) {
        let data = data_segment();
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.cs = code_segment(self.protocol);
        sregs.tr = task_segment();
        sregs.gdt = kvm_dtable { base: layout::GDT, limit: GDT_LIMIT, ..Default::default() };
        sregs.idt = kvm_dtable::default();
        sregs.cr0 = CR0_PE | CR0_ET;
        if self.protocol == Protocol::Linux64 {
            sregs.cr0 |= CR0_PG;
            sregs.cr3 = layout::PAGE_TABLES;
            sregs.cr4 |= CR4_PAE;
            sregs.efer |= EFER_LME | EFER_LMA;
        }
    }
}

/// Writes the descriptor table, the page tables where the protocol has paging on, and the reset
/// vector.
///
/// # Errors
/// When guest memory ends below 1 MiB.
pub fn write_boot_tables(
    memory: &GuestMemoryMmap,
    protocol: Protocol,
) -> Result<(), GuestMemoryError> {
    for (address, descriptor) in (layout::GDT..).step_by(8).zip(gdt(protocol)) {
        memory.write_obj(descriptor, GuestAddress(address))?;
    }
    reset_vector::write(memory)?;
    match protocol {
        Protocol::Pvh => Ok(()),
        Protocol::Linux64 => write_identity_map(memory),
    }
}

/// Maps the first 4 GiB to themselves: one PML4, one PDPT, and four directories of 2 MiB pages.
fn write_identity_map(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    let pointers = layout::PAGE_TABLES + PAGE;
    let directories = pointers + PAGE;
    memory.write_obj(pointers | PRESENT_WRITABLE, GuestAddress(layout::PAGE_TABLES))?;
    for (slot, directory) in (pointers..).step_by(8).zip((directories..).step_by(0x1000)).take(4) {
        memory.write_obj(directory | PRESENT_WRITABLE, GuestAddress(slot))?;
    }
    // The four directories lie one behind the other, and so are one table of 2048 entries.
    for (slot, page) in (directories..).step_by(8).zip((0_u64..).step_by(2 << 20)).take(2048) {
        memory.write_obj(page | LARGE | PRESENT_WRITABLE, GuestAddress(slot))?;
    }
    Ok(())
}

const GDT_LIMIT: u16 = 5 * 8 - 1;

/// Two empty entries, then those of the selectors above.
fn gdt(protocol: Protocol) -> [u64; 5] {
    let segments = [code_segment(protocol), data_segment(), task_segment()];
    let [code, data, task] = segments.map(|segment| descriptor(&segment));
    [0, 0, code, data, task]
}

/// Flat, readable, executed before.
fn code_segment(protocol: Protocol) -> kvm_segment {
    let long = protocol == Protocol::Linux64;
    kvm_segment {
        limit: u32::MAX,
        selector: CODE,
        type_: 0xb,
        present: 1,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

/// Flat, writable, used before.
fn data_segment() -> kvm_segment {
    kvm_segment {
        limit: u32::MAX,
        selector: DATA,
        type_: 0x3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

/// A busy task of the least size; entering a guest needs one (Intel SDM volume 3, §27.3.1.2).
fn task_segment() -> kvm_segment {
    kvm_segment { limit: 0x67, selector: TASK, type_: 0xb, present: 1, ..Default::default() }
}

/// A segment as the descriptor table has it (Intel SDM volume 3, §3.4.5).
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 1 { segment.limit >> 12 } else { segment.limit });
    let flags = u64::from(segment.type_)
        | u64::from(segment.s) << 4
        | u64::from(segment.dpl) << 5
        | u64::from(segment.present) << 7
        | u64::from(segment.avl) << 12
        | u64::from(segment.l) << 13
        | u64::from(segment.db) << 14
        | u64::from(segment.g) << 15;
    let base = segment.base;
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | flags << 40
        | (limit >> 16 & 0xf) << 48
        | (base >> 24 & 0xff) << 56
}

#[cfg(test)]
#[path = "entry_test.rs"]
mod tests;
