//! What a PVH kernel is told: `hvm_start_info` with the initrd as its module, and the memory map
//! (Xen's `arch-x86/hvm/start_info.h`).

use std::mem::size_of;

use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress};

use super::{BootError, Loaded, memory_map};
use crate::arch::layout;
use crate::memory::GuestRam;

/// With a memory map.
const VERSION: u32 = 1;

/// Writes all of it and says where it begins.
pub(super) fn write(ram: &GuestRam, loaded: &Loaded) -> Result<u64, BootError> {
    let memory = ram.memory();
    let modules = layout::PVH_START_INFO.saturating_add(size_of::<hvm_start_info>() as u64);
    let map_start = modules.saturating_add(size_of::<hvm_modlist_entry>() as u64);
    let map = memory_map::of(ram);
    let (initrd, initrd_len) = loaded.initrd;
    let start_info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        nr_modules: u32::from(initrd_len > 0),
        modlist_paddr: if initrd_len > 0 { modules } else { 0 },
        cmdline_paddr: layout::COMMAND_LINE,
        rsdp_paddr: loaded.spec.rsdp,
        memmap_paddr: map_start,
        memmap_entries: u32::try_from(map.len()).unwrap_or(u32::MAX),
        ..Default::default()
    };
    memory.write_obj(start_info, GuestAddress(layout::PVH_START_INFO))?;
    let module = hvm_modlist_entry { paddr: initrd, size: initrd_len, ..Default::default() };
    memory.write_obj(module, GuestAddress(modules))?;
    let places = (map_start..).step_by(size_of::<hvm_memmap_table_entry>());
    for (entry, place) in map.into_iter().zip(places) {
        let entry = hvm_memmap_table_entry {
            addr: entry.start,
            size: entry.len,
            type_: entry.range_type as u32,
            reserved: 0,
        };
        memory.write_obj(entry, GuestAddress(place))?;
    }
    Ok(layout::PVH_START_INFO)
}
