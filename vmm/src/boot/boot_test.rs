//! What kernels are taken and what is said of the others.

#![expect(clippy::arithmetic_side_effects, reason = "tests panic where they are wrong")]

use std::fs;
use std::sync::LazyLock;

use linux_loader::bootparam::{boot_params, setup_header};
use linux_loader::elf::{Elf64_Ehdr, Elf64_Phdr, PT_LOAD, PT_NOTE};
use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use proptest::prelude::*;
use tempfile::TempDir;
use vm_memory::{ByteValued, Bytes};

use super::*;
use crate::memory::MemorySpec;

const MIB: u64 = 1 << 20;
const KERNEL: u64 = 16 * MIB;

/// An ELF kernel in parts, so that a test can spoil one of them.
struct ElfFile {
    header: Elf64_Ehdr,
    load: Elf64_Phdr,
    note: Elf64_Phdr,
    notes: Vec<u8>,
    code: Vec<u8>,
}

const NOTES: u64 = 0x200;
const CODE: u64 = 0x400;

fn note(note_type: u32, name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for number in [name.len() as u32, content.len() as u32, note_type] {
        note.extend(number.to_le_bytes());
    }
    for field in [name, content] {
        note.extend(field);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

fn pvh_note() -> Vec<u8> {
    note(18, b"Xen\0", &(KERNEL as u32 + 0x10).to_le_bytes())
}

fn elf() -> ElfFile {
    let mut header = Elf64_Ehdr { e_phoff: 64, e_phentsize: 56, e_phnum: 2, ..Default::default() };
    header.e_ident[..6].copy_from_slice(b"\x7fELF\x02\x01");
    header.e_machine = 62;
    let notes = [note(1, b"GNU\0", b"something"), pvh_note()].concat();
    ElfFile {
        header,
        load: Elf64_Phdr {
            p_type: PT_LOAD,
            p_offset: CODE,
            p_paddr: KERNEL,
            p_filesz: 0x100,
            p_memsz: 2 * MIB,
            ..Default::default()
        },
        note: Elf64_Phdr {
            p_type: PT_NOTE,
            p_offset: NOTES,
            p_filesz: notes.len() as u64,
            p_memsz: notes.len() as u64,
            p_align: 4,
            ..Default::default()
        },
        notes,
        code: (0..=255).collect(),
    }
}

impl ElfFile {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; CODE as usize];
        bytes[..64].copy_from_slice(self.header.as_slice());
        bytes[64..120].copy_from_slice(self.load.as_slice());
        bytes[120..176].copy_from_slice(self.note.as_slice());
        bytes[NOTES as usize..][..self.notes.len()].copy_from_slice(&self.notes);
        bytes.extend(&self.code);
        bytes
    }
}

/// A bzImage of five sectors and 256 bytes.
fn bzimage(change: impl Fn(&mut setup_header)) -> Vec<u8> {
    let mut header = setup_header {
        setup_sects: 4,
        syssize: 0x10,
        boot_flag: 0xaa55,
        jump: 0x6aeb,
        header: u32::from_le_bytes(*b"HdrS"),
        version: 0x20f,
        loadflags: 1,
        initrd_addr_max: 0x7fff_ffff,
        xloadflags: 1,
        cmdline_size: 2047,
        pref_address: KERNEL,
        init_size: 2 << 20,
        ..Default::default()
    };
    change(&mut header);
    let mut bytes = vec![0; 5 * 512];
    bytes[0x1f1..][..header.as_slice().len()].copy_from_slice(header.as_slice());
    bytes.extend(0..=255_u8);
    bytes
}

fn ram(mib: u64) -> GuestRam {
    GuestRam::new(&MemorySpec { size: mib * MIB, hugepages: None, prefault: false }).unwrap()
}

struct Boot {
    ram: GuestRam,
    result: Result<EntryPoint, BootError>,
}

impl Boot {
    fn refusal(&self, dir: &TempDir) -> String {
        let dir = format!("{}/", dir.path().display());
        self.result.as_ref().unwrap_err().to_string().replace(&dir, "")
    }

    fn read<T: ByteValued>(&self, address: u64) -> T {
        self.ram.memory().read_obj(GuestAddress(address)).unwrap()
    }
}

fn boot_in(ram: GuestRam, dir: &TempDir, kernel: &[u8], initrd: Option<&[u8]>, line: &str) -> Boot {
    let (kernel_path, initrd_path) = (dir.path().join("kernel"), dir.path().join("initrd"));
    fs::write(&kernel_path, kernel).unwrap();
    if let Some(initrd) = initrd {
        fs::write(&initrd_path, initrd).unwrap();
    }
    let spec = BootSpec { command_line: line, rsdp: layout::ACPI_TABLES.start };
    let result = BootFiles::open(&kernel_path, initrd.map(|_| initrd_path.as_path()))
        .and_then(|files| files.load(&ram, &spec));
    Boot { ram, result }
}

fn boot(kernel: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    boot_in(ram(64), &dir, kernel, None, "").refusal(&dir)
}

#[test]
fn an_elf_kernel_is_entered_by_its_pvh_note() {
    let dir = tempfile::tempdir().unwrap();
    let boot = boot_in(ram(64), &dir, &elf().bytes(), Some(b"disk"), "console=ttyS0");
    let entry = *boot.result.as_ref().unwrap();
    assert_eq!(entry.protocol, Protocol::Pvh);
    assert_eq!(entry.address, KERNEL + 0x10);
    assert_eq!(boot.read::<[u8; 4]>(KERNEL + 0xfc), [0xfc, 0xfd, 0xfe, 0xff]);

    let info: hvm_start_info = boot.read(entry.boot_data);
    assert_eq!((info.magic, info.version), (XEN_HVM_START_MAGIC_VALUE, 1));
    assert_eq!(info.rsdp_paddr, layout::ACPI_TABLES.start);
    assert_eq!(&boot.read::<[u8; 14]>(info.cmdline_paddr), b"console=ttyS0\0");
    let module: hvm_modlist_entry = boot.read(info.modlist_paddr);
    assert_eq!((info.nr_modules, module.paddr, module.size), (1, 64 * MIB - 4096, 4));
    assert_eq!(&boot.read::<[u8; 4]>(module.paddr), b"disk");
    let last = info.memmap_paddr + 24 * u64::from(info.memmap_entries - 2);
    let high: hvm_memmap_table_entry = boot.read(last);
    assert_eq!((high.addr, high.size, high.type_), (MIB, 63 * MIB, 1));
}

#[test]
fn a_bzimage_is_entered_in_64_bits_where_it_prefers_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let boot = boot_in(ram(64), &dir, &bzimage(|_| {}), Some(b"disk"), "quiet");
    let entry = *boot.result.as_ref().unwrap();
    assert_eq!(entry.protocol, Protocol::Linux64);
    assert_eq!(entry.address, KERNEL + 0x200);
    assert_eq!(boot.read::<[u8; 4]>(KERNEL), [0, 1, 2, 3]);

    let params: boot_params = boot.read(entry.boot_data);
    let header = params.hdr;
    assert_eq!({ params.acpi_rsdp_addr }, layout::ACPI_TABLES.start);
    assert_eq!((header.type_of_loader, { header.version }), (0xff, 0x20f));
    assert_eq!(&boot.read::<[u8; 6]>(header.cmd_line_ptr.into()), b"quiet\0");
    assert_eq!(({ header.ramdisk_image }, { header.ramdisk_size }), (64 * (1 << 20) - 4096, 4));
    let table = params.e820_table;
    let ram: Vec<_> = table[..params.e820_entries.into()]
        .iter()
        .filter(|entry| { entry.r#type } == 1)
        .map(|entry| ({ entry.addr }, { entry.size }))
        .collect();
    assert_eq!(ram, [(0, layout::LOW_RAM_END), (MIB, 63 * MIB)]);
}

#[test]
fn an_initrd_stays_below_what_the_kernel_can_reach() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = bzimage(|header| header.initrd_addr_max = 0x2ff_ffff);
    let boot = boot_in(ram(128), &dir, &kernel, Some(b"disk"), "");
    let params: boot_params = boot.read(boot.result.as_ref().unwrap().boot_data);
    assert_eq!({ params.hdr.ramdisk_image }, 0x2ff_f000);
}

#[test]
fn files_that_are_not_there_or_not_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = BootFiles::open(&dir.path().join("no"), None).unwrap_err().to_string();
    assert!(missing.starts_with("there is no kernel at /") && missing.ends_with("/no"));
    let directory = BootFiles::open(dir.path(), None).unwrap_err().to_string();
    assert!(directory.ends_with("is not a regular file"), "{directory}");
    let kernel = dir.path().join("kernel");
    fs::write(&kernel, elf().bytes()).unwrap();
    let missing = BootFiles::open(&kernel, Some(&dir.path().join("no"))).unwrap_err().to_string();
    assert!(missing.starts_with("there is no initrd at /"), "{missing}");
}

#[test]
fn what_is_not_a_kernel_is_refused() {
    let sentence =
        "kernel is not a kernel; it must be an x86-64 ELF vmlinux with a PVH note, or a bzImage";
    for bytes in [&[][..], b"#!/bin/sh\n", &[0; 4096], b"\x7fEL"] {
        assert_eq!(boot(bytes), sentence);
    }
    assert_eq!(boot(&bzimage(|header| header.header = 0)), sentence);
    assert_eq!(boot(&bzimage(|header| header.boot_flag = 0)), sentence);
}

#[test]
fn an_elf_file_for_something_else_is_refused() {
    let sentence = "kernel is an ELF file, but not an x86-64 executable";
    let mut file = elf();
    file.header.e_machine = 183;
    assert_eq!(boot(&file.bytes()), sentence);
    let mut file = elf();
    file.header.e_ident[4] = 1;
    assert_eq!(boot(&file.bytes()), sentence);
}

#[test]
fn an_elf_kernel_without_pvh_note_is_refused_with_the_way_out() {
    let sentence = "the ELF kernel kernel has no PVH entry point; build it with CONFIG_PVH=y, or \
                    give its bzImage";
    let others = [
        note(18, b"GNU\0", &[0; 4]),
        note(17, b"Xen\0", &[0; 4]),
        note(18, b"Xen\0", &[0; 2]),
        pvh_note()[..pvh_note().len() - 1].to_vec(),
        vec![0xff; 12],
    ];
    for notes in others {
        let mut file = elf();
        file.note.p_filesz = notes.len() as u64;
        file.notes = notes;
        assert_eq!(boot(&file.bytes()), sentence);
    }
    let mut file = elf();
    file.header.e_phnum = 1;
    assert_eq!(boot(&file.bytes()), sentence);
}

#[test]
fn a_kernel_that_ends_too_early_is_refused_with_both_lengths() {
    let (elf, image) = (elf().bytes(), bzimage(|_| {}));
    let sentence = |needed: usize, size: usize| {
        format!(
            "the kernel kernel is truncated: its headers tell of {needed} bytes and it has {size}"
        )
    };
    assert_eq!(boot(&elf[..40]), sentence(64, 40));
    assert_eq!(boot(&elf[..100]), sentence(120, 100));
    assert_eq!(boot(&elf[..elf.len() - 1]), sentence(elf.len(), elf.len() - 1));
    assert_eq!(boot(&image[..image.len() - 1]), sentence(image.len(), image.len() - 1));
    assert_eq!(boot(&image[..0x300]), sentence(image.len(), 0x300));
}

#[test]
fn elf_headers_that_contradict_themselves_are_damage() {
    let damage = |spoil: &dyn Fn(&mut ElfFile)| {
        let mut file = elf();
        spoil(&mut file);
        boot(&file.bytes())
    };
    let sentence = |what| format!("the ELF kernel kernel is damaged: {what}");
    assert_eq!(
        damage(&|file| file.header.e_phentsize = 32),
        sentence("its program headers have another size than ELF's")
    );
    assert_eq!(
        damage(&|file| file.header.e_phnum = 9999),
        sentence("it has too many program headers")
    );
    assert_eq!(
        damage(&|file| file.load.p_memsz = 0x80),
        sentence("a segment is longer in the file than in memory")
    );
    assert_eq!(damage(&|file| file.load.p_type = 0), sentence("it has nothing to load"));
    assert_eq!(
        damage(&|file| file.load.p_paddr = 2 * KERNEL),
        sentence("its PVH entry point is outside of what it loads")
    );
}

#[test]
fn a_segment_where_no_kernel_can_be_is_refused() {
    let mut file = elf();
    file.notes = note(18, b"Xen\0", &0x8010_u32.to_le_bytes());
    file.note.p_filesz = file.notes.len() as u64;
    file.load.p_paddr = 0x8000;
    assert_eq!(
        boot(&file.bytes()),
        "the kernel kernel wants to be at 0x8000 with 2097152 bytes, where no kernel can be"
    );
    let mut file = elf();
    file.load.p_memsz = u64::MAX;
    assert!(boot(&file.bytes()).ends_with("where no kernel can be"));
}

#[test]
fn a_kernel_larger_than_memory_is_refused_with_the_need() {
    let mut file = elf();
    file.load.p_memsz = 64 * MIB;
    let sentence = "the kernel kernel is too large for 64 MiB of memory: it needs the memory up to \
                    0x5000000; give more with --memory";
    assert_eq!(boot(&file.bytes()), sentence);
    assert_eq!(boot(&bzimage(|header| header.init_size = 64 << 20)), sentence);
}

#[test]
fn an_initrd_that_does_not_fit_or_is_empty_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let initrd = vec![1; 47 << 20];
    let too_large = boot_in(ram(64), &dir, &elf().bytes(), Some(&initrd), "").refusal(&dir);
    assert_eq!(
        too_large,
        "the initrd initrd with 49283072 bytes is too large: beside the kernel there is room for \
         48234496; give more with --memory"
    );
    let empty = boot_in(ram(64), &dir, &elf().bytes(), Some(b""), "").refusal(&dir);
    assert_eq!(empty, "the initrd initrd is empty");
}

#[test]
fn the_command_line_is_as_long_as_the_kernel_takes_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let line = |len| "a".repeat(len);
    let sentence = |len, limit| {
        format!("the command line has {len} bytes, and this kernel takes at most {limit}")
    };
    assert!(boot_in(ram(64), &dir, &elf().bytes(), None, &line(2047)).result.is_ok());
    let refusal = boot_in(ram(64), &dir, &elf().bytes(), None, &line(2048)).refusal(&dir);
    assert_eq!(refusal, sentence(2048, 2047));
    let image = bzimage(|header| header.cmdline_size = 255);
    assert_eq!(boot_in(ram(64), &dir, &image, None, &line(256)).refusal(&dir), sentence(256, 255));
    let greedy = bzimage(|header| header.cmdline_size = u32::MAX);
    let refusal = boot_in(ram(64), &dir, &greedy, None, &line(0x1_0000)).refusal(&dir);
    assert_eq!(refusal, sentence(0x1_0000, 0xffff));
    let zero = boot_in(ram(64), &dir, &elf().bytes(), None, "a\0b").refusal(&dir);
    assert_eq!(zero, "the command line has a zero byte in it");
}

#[test]
fn an_old_or_32_bit_bzimage_is_refused() {
    let sentence =
        "the bzImage kernel has no 64-bit entry point; it is of a 32-bit or very old kernel";
    assert_eq!(boot(&bzimage(|header| header.xloadflags = 0)), sentence);
    assert_eq!(boot(&bzimage(|header| header.version = 0x20b)), sentence);
    assert_eq!(boot(&bzimage(|header| header.loadflags = 0)), sentence);
}

#[test]
fn a_reboot_boots_what_was_booted_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kernel");
    fs::write(&path, elf().bytes()).unwrap();
    let files = BootFiles::open(&path, None).unwrap();
    fs::remove_file(&path).unwrap();
    let ram = ram(64);
    let spec = BootSpec { command_line: "", rsdp: 0 };
    let first = files.load(&ram, &spec).unwrap();
    ram.clear().unwrap();
    assert_eq!(files.load(&ram, &spec).unwrap(), first);
    assert_eq!(ram.memory().read_obj::<u8>(GuestAddress(KERNEL + 1)).unwrap(), 1);
}

/// Loads `bytes` as a kernel and lets it end as it may, but not by a panic.
fn try_to_boot(bytes: &[u8]) {
    static RAM: LazyLock<GuestRam> = LazyLock::new(|| ram(64));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let files = BootFiles::open(file.path(), None).unwrap();
    let _ended = files.load(&RAM, &BootSpec { command_line: "", rsdp: 0 });
}

proptest! {
    #[test]
    fn no_bytes_make_the_loader_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        try_to_boot(&bytes);
    }

    #[test]
    fn no_spoilt_elf_file_makes_the_loader_panic(
        spoilt in prop::collection::vec((0_usize..0x240, any::<u8>()), 0..16),
        len in 0_usize..0x500,
    ) {
        let mut bytes = elf().bytes();
        for (at, byte) in spoilt {
            bytes[at] = byte;
        }
        bytes.truncate(len);
        try_to_boot(&bytes);
    }

    #[test]
    fn no_spoilt_bzimage_makes_the_loader_panic(
        spoilt in prop::collection::vec((0x1f1_usize..0x300, any::<u8>()), 0..16),
        len in 0_usize..0xb00,
    ) {
        let mut bytes = bzimage(|_| {});
        for (at, byte) in spoilt {
            bytes[at] = byte;
        }
        bytes.truncate(len);
        try_to_boot(&bytes);
    }
}
