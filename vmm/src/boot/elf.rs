//! A vmlinux: an ELF file whose PVH note tells the 32-bit entry point.

use std::mem::size_of;

use linux_loader::elf::{
    EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, Elf64_Ehdr, Elf64_Nhdr, Elf64_Phdr, PT_LOAD,
    PT_NOTE,
};
use vm_memory::ByteValued;

use super::image::Image;
use super::{BootError, check_place};
use crate::memory::GuestRam;

/// An x86 kernel's COMMAND_LINE_SIZE less the zero at its end. ELF has no field for it.
pub(super) const COMMAND_LINE_LIMIT: usize = 2047;

const MAGIC: &[u8] = b"\x7fELF";
const EM_X86_64: u16 = 62;
/// More than any linker writes.
const MOST_SEGMENTS: u16 = 128;
const LONGEST_NOTES: u64 = 1 << 20;

/// Xen's `elfnote.h`: the note that holds the 32-bit physical address of the PVH entry point.
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
const XEN: &[u8] = b"Xen\0";

/// An ELF kernel whose headers are good, as far as they are of the file itself.
#[derive(Debug)]
pub(super) struct Elf {
    segments: Vec<Segment>,
    entry: u64,
}

/// A stretch of the file that goes to memory.
#[derive(Debug)]
struct Segment {
    address: u64,
    /// Its length in memory; what is not in the file is zero.
    memory_len: u64,
    offset: u64,
    file_len: u64,
}

/// Whether it looks like an ELF file.
pub(super) fn is_elf(image: &Image) -> Result<bool, BootError> {
    Ok(image.head(MAGIC.len() as u64)? == MAGIC)
}

impl Elf {
    /// Reads the headers and the notes of a file that [`is_elf`].
    pub(super) fn parse(image: &Image) -> Result<Self, BootError> {
        let damaged = |what| BootError::DamagedElf { path: image.path().into(), what };
        let mut header = Elf64_Ehdr::default();
        image.read(0, header.as_mut_slice())?;
        let has = |field: usize, value: u32| {
            header.e_ident.get(field).is_some_and(|&byte| u32::from(byte) == value)
        };
        if !has(EI_CLASS, ELFCLASS64.into())
            || !has(EI_DATA, ELFDATA2LSB.into())
            || header.e_machine != EM_X86_64
        {
            return Err(BootError::OtherElf { path: image.path().into() });
        }
        if usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>() {
            return Err(damaged("its program headers have another size than ELF's"));
        }
        if header.e_phnum > MOST_SEGMENTS {
            return Err(damaged("it has too many program headers"));
        }
        let mut programs = vec![Elf64_Phdr::default(); header.e_phnum.into()];
        let offsets = (header.e_phoff..).step_by(size_of::<Elf64_Phdr>());
        for (program, offset) in programs.iter_mut().zip(offsets) {
            image.read(offset, program.as_mut_slice())?;
        }
        let segments = segments(image, &programs)?;
        if segments.is_empty() {
            return Err(damaged("it has nothing to load"));
        }
        let entry = entry(image, &programs)?;
        let entry = entry.ok_or_else(|| BootError::NoPvhNote { path: image.path().into() })?;
        if !segments.iter().any(|segment| segment.holds(entry)) {
            return Err(damaged("its PVH entry point is outside of what it loads"));
        }
        Ok(Self { segments, entry })
    }

    /// The PVH entry point.
    pub(super) fn entry(&self) -> u64 {
        self.entry
    }

    /// Copies the segments to where they belong, once it is known that all fit, and says where the
    /// highest ends.
    pub(super) fn load(&self, image: &Image, ram: &GuestRam) -> Result<u64, BootError> {
        let (mut start, mut end) = (u64::MAX, 0);
        for segment in &self.segments {
            end = check_place(image, ram, segment.address, segment.memory_len)?.max(end);
            start = segment.address.min(start);
        }
        ram.will_use(start..end);
        for segment in &self.segments {
            image.copy_to(ram, segment.address, segment.offset, segment.file_len)?;
        }
        Ok(end)
    }
}

impl Segment {
    fn holds(&self, address: u64) -> bool {
        address.checked_sub(self.address).is_some_and(|offset| offset < self.file_len)
    }
}

/// What goes to memory.
fn segments(image: &Image, programs: &[Elf64_Phdr]) -> Result<Vec<Segment>, BootError> {
    let mut segments = Vec::new();
    for program in programs.iter().filter(|program| program.p_type == PT_LOAD) {
        image.has(program.p_offset.checked_add(program.p_filesz))?;
        if program.p_filesz > program.p_memsz {
            let what = "a segment is longer in the file than in memory";
            return Err(BootError::DamagedElf { path: image.path().into(), what });
        }
        // An empty one may stand anywhere, as the per-CPU segment does at zero.
        if program.p_memsz > 0 {
            segments.push(Segment {
                address: program.p_paddr,
                memory_len: program.p_memsz,
                offset: program.p_offset,
                file_len: program.p_filesz,
            });
        }
    }
    Ok(segments)
}

/// The address in the PVH note, if there is one.
fn entry(image: &Image, programs: &[Elf64_Phdr]) -> Result<Option<u64>, BootError> {
    for program in programs.iter().filter(|program| program.p_type == PT_NOTE) {
        image.has(program.p_offset.checked_add(program.p_filesz))?;
        let what = "its notes are too long";
        let len = Some(program.p_filesz).filter(|&len| len <= LONGEST_NOTES);
        let len = len.and_then(|len| usize::try_from(len).ok());
        let len = len.ok_or_else(|| BootError::DamagedElf { path: image.path().into(), what })?;
        let mut notes = vec![0; len];
        image.read(program.p_offset, &mut notes)?;
        // Notes are aligned to 4 bytes, but those of segments that say so, to 8.
        let align = if program.p_align == 8 { 8 } else { 4 };
        if let Some(entry) = find_entry(&notes, align) {
            return Ok(Some(entry.into()));
        }
    }
    Ok(None)
}

/// The address in the PVH note among `notes`. Notes that don't fit their segment end the search.
fn find_entry(mut notes: &[u8], align: usize) -> Option<u32> {
    loop {
        let (header, rest) = notes.split_at_checked(size_of::<Elf64_Nhdr>())?;
        let mut note = Elf64_Nhdr::default();
        note.as_mut_slice().copy_from_slice(header);
        let (name, rest) = padded(rest, note.n_namesz, align)?;
        let (content, rest) = padded(rest, note.n_descsz, align)?;
        if note.n_type == XEN_ELFNOTE_PHYS32_ENTRY && name == XEN {
            // The field is as wide as an address of whoever wrote it: 4 or 8 bytes.
            return content.first_chunk().map(|address| u32::from_le_bytes(*address));
        }
        notes = rest;
    }
}

/// The first `len` bytes, and what comes behind them and their padding.
fn padded(bytes: &[u8], len: u32, align: usize) -> Option<(&[u8], &[u8])> {
    let len = usize::try_from(len).ok()?;
    let padded_len = len.checked_next_multiple_of(align)?;
    Some((bytes.get(..len)?, bytes.get(padded_len..).unwrap_or_default()))
}
