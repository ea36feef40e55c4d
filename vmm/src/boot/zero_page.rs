//! What a bzImage is told: `boot_params`, the "zero page" (the kernel's
//! Documentation/arch/x86/zero-page.rst).

use linux_loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::bzimage::BzImage;
use super::{BootError, Loaded, memory_map};
use crate::arch::layout;
use crate::memory::GuestRam;

/// "A bootloader without an assigned id."
const LOADER_UNDEFINED: u8 = 0xff;

/// Writes it and says where it is.
pub(super) fn write(ram: &GuestRam, kernel: &BzImage, loaded: &Loaded) -> Result<u64, BootError> {
    let mut params = boot_params { hdr: kernel.header(), ..Default::default() };
    params.acpi_rsdp_addr = loaded.spec.rsdp;
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = low(layout::COMMAND_LINE);
    let (initrd, initrd_len) = loaded.initrd;
    params.hdr.ramdisk_image = low(initrd);
    params.hdr.ramdisk_size = low(initrd_len);
    let map = memory_map::of(ram);
    params.e820_entries = u8::try_from(map.len()).unwrap_or(u8::MAX);
    for (slot, entry) in params.e820_table.iter_mut().zip(map) {
        *slot =
            boot_e820_entry { addr: entry.start, size: entry.len, r#type: entry.range_type as u32 };
    }
    ram.memory().write_slice(params.as_slice(), GuestAddress(layout::ZERO_PAGE))?;
    Ok(layout::ZERO_PAGE)
}

/// An address or a length in low memory, which is below 3 GiB.
fn low(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
