//! Kernels of a few instructions, as ELF files with the PVH note: enough to see how a VMM starts,
//! fails and ends without booting anything.

/// Where a payload is loaded and entered, in 32-bit protected mode without paging.
pub const ENTRY: u32 = 0x10_0000;

/// `hlt; jmp .-1`: a guest that does nothing for ever.
pub const HALT: &[u8] = &[0xf4, 0xeb, 0xfd];

/// A guest that faults with no interrupt table: `lidt [zeros]; ud2; zeros: 6 zero bytes`.
pub const TRIPLE_FAULT: &[u8] =
    &[0x0f, 0x01, 0x1d, 0x09, 0x00, 0x10, 0x00, 0x0f, 0x0b, 0, 0, 0, 0, 0, 0];

/// A guest that runs where no memory is: `mov eax, 0xd0000000; jmp eax`.
pub const RUN_AWAY: &[u8] = &[0xb8, 0, 0, 0, 0xd0, 0xff, 0xe0];

const NOTE: &[u8] = &[
    4, 0, 0, 0, // namesz
    4, 0, 0, 0, // descsz
    18, 0, 0, 0, // XEN_ELFNOTE_PHYS32_ENTRY
    b'X', b'e', b'n', 0, //
    0x00, 0x00, 0x10, 0x00, // ENTRY
];

/// Where a firmware of 64 KiB is, and what is where in it.
const FIRMWARE: u32 = 0xffff_0000;
const GLOBAL_TABLE: u32 = 0xfe00;
const TABLE_REGISTER: u32 = 0xfe20;
const REAL: u32 = 0xff00;
const PROTECTED: u32 = 0xff40;
const RESET: u32 = 0xfff0;

const FILE_HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;

/// An ELF file that loads `code` at [`ENTRY`] and claims `memory` bytes there.
pub fn elf(code: &[u8], memory: u64) -> Vec<u8> {
    let note_at = FILE_HEADER + 2 * PROGRAM_HEADER;
    let code_at = note_at + NOTE.len() as u64;
    let mut file = Vec::new();
    // e_ident: 64-bit, little endian, version 1.
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    push16(&mut file, &[2, 62]); // ET_EXEC, EM_X86_64
    push32(&mut file, &[1]);
    push64(&mut file, &[u64::from(ENTRY), FILE_HEADER, 0]); // e_entry, e_phoff, e_shoff
    push32(&mut file, &[0]);
    push16(&mut file, &[64, 56, 2, 64, 0, 0]); // sizes and counts of the headers
    let entry = u64::from(ENTRY);
    push32(&mut file, &[1, 7]); // PT_LOAD, RWX
    push64(&mut file, &[code_at, entry, entry, code.len() as u64, memory, 0x1000]);
    push32(&mut file, &[4, 4]); // PT_NOTE, R
    push64(&mut file, &[note_at, 0, 0, NOTE.len() as u64, NOTE.len() as u64, 4]);
    file.extend_from_slice(NOTE);
    file.extend_from_slice(code);
    file
}

/// An ELF file that loads and runs `code`.
pub fn kernel(code: &[u8]) -> Vec<u8> {
    elf(code, code.len() as u64)
}

/// What a PC finds at its reset: a firmware of 64 KiB that runs `code` in the same state. For a VMM that
/// enters no kernel without a firmware of its own before it.
///
/// # Panics
/// When there is more code than room for it.
pub fn firmware(code: &[u8]) -> Vec<u8> {
    // Flat segments of 4 GiB: code at 8, data at 16.
    let mut table = Vec::new();
    push64(&mut table, &[0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff]);
    let mut table_register = Vec::new();
    push16(&mut table_register, &[23]);
    push32(&mut table_register, &[FIRMWARE + GLOBAL_TABLE]);
    // cli; lgdt cs:[TABLE_REGISTER]; mov eax, cr0; or eax, 1; mov cr0, eax; jmp 8:PROTECTED
    let mut real = vec![0xfa, 0x2e, 0x66, 0x0f, 0x01, 0x16];
    push16(&mut real, &[TABLE_REGISTER as u16]);
    real.extend([0x0f, 0x20, 0xc0, 0x66, 0x83, 0xc8, 1, 0x0f, 0x22, 0xc0, 0x66, 0xea]);
    push32(&mut real, &[FIRMWARE + PROTECTED]);
    push16(&mut real, &[8]);
    // mov ax, 16; mov ds, ax; mov es, ax; mov ss, ax; jmp 0
    let mut protected = vec![0x66, 0xb8, 16, 0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xe9];
    let end = PROTECTED + 15;
    push32(&mut protected, &[0_u32.wrapping_sub(end)]);
    // jmp REAL
    let mut reset = vec![0xe9];
    push16(&mut reset, &[(REAL as u16).wrapping_sub(RESET as u16 + 3)]);
    let mut image = vec![0xf4; 0x1_0000];
    assert!(code.len() <= GLOBAL_TABLE as usize, "{} bytes of code", code.len());
    for (at, part) in [
        (0, code),
        (GLOBAL_TABLE, &table),
        (TABLE_REGISTER, &table_register),
        (REAL, &real),
        (PROTECTED, &protected),
        (RESET, &reset),
    ] {
        image[at as usize..][..part.len()].copy_from_slice(part);
    }
    image
}

fn push16(file: &mut Vec<u8>, values: &[u16]) {
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn push32(file: &mut Vec<u8>, values: &[u32]) {
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn push64(file: &mut Vec<u8>, values: &[u64]) {
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}
