//! What a PC's BIOS has at FFFF:0000: real-mode code that starts the machine anew.
//!
//! There is no BIOS, but Linux goes there to reboot: on a machine with hardware-reduced ACPI it
//! means to reset by EFI and, having none, ends in `machine_real_restart`.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::layout;

/// Pulses the reset line through the keyboard controller, then waits for it to work.
const CODE: [u8; 7] = [
    0xb0,
    0xfe, // mov al, 0xfe
    0xe6,
    layout::I8042 as u8 + 4, // out 0x64, al
    0xf4,                    // hlt
    0xeb,
    0xfd, // jmp to the hlt
];

/// Writes the code where a BIOS's reset vector is.
pub(super) fn write(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    memory.write_slice(&CODE, GuestAddress(layout::RESET_VECTOR))
}
