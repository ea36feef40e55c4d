//! The tables, read back by ACPICA's own disassembler.

use std::fs;
use std::process::Command;

use super::*;

fn written(platform: &Platform) -> (GuestMemoryMmap, u64) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
    let rsdp = write(&memory, platform).unwrap();
    (memory, rsdp)
}

fn platform(cpus: u8) -> Platform {
    Platform { cpus, serial: true, pci_window_64: 0x1_0000_0000..0x11_0000_0000 }
}

fn read<const N: usize>(memory: &GuestMemoryMmap, address: u64) -> [u8; N] {
    let mut bytes = [0; N];
    memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

/// The whole table at `address`, whose header tells its length.
fn table(memory: &GuestMemoryMmap, address: u64) -> Vec<u8> {
    let len = u32::from_le_bytes(read(memory, address + 4));
    let mut bytes = vec![0; len as usize];
    memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Every table that the RSDP leads to, the DSDT last.
fn tables(memory: &GuestMemoryMmap, rsdp: u64) -> Vec<Vec<u8>> {
    let header: [u8; 36] = read(memory, rsdp);
    assert_eq!(&header[..8], b"RSD PTR ");
    assert_eq!((sum(&header[..20]), sum(&header)), (0, 0));
    let xsdt = table(memory, u64::from_le_bytes(header[24..32].try_into().unwrap()));
    let mut tables: Vec<_> = xsdt[36..]
        .chunks(8)
        .map(|entry| table(memory, u64::from_le_bytes(entry.try_into().unwrap())))
        .collect();
    let fadt = tables.iter().find(|table| table.starts_with(b"FACP")).unwrap();
    let dsdt = table(memory, u64::from_le_bytes(fadt[140..148].try_into().unwrap()));
    tables.push(dsdt);
    tables.push(xsdt);
    tables
}

#[test]
fn every_table_is_found_from_the_rsdp_and_sums_to_zero() {
    let (memory, rsdp) = written(&platform(64));
    let tables = tables(&memory, rsdp);
    let mut names: Vec<_> = tables.iter().map(|table| &table[..4]).collect();
    names.sort_unstable();
    assert_eq!(names, [b"APIC", b"DSDT", b"FACP", b"MCFG", b"XSDT"]);
    assert!(tables.iter().all(|table| sum(table) == 0));
}

#[test]
fn the_madt_has_a_local_apic_for_each_processor() {
    let (memory, rsdp) = written(&platform(3));
    let tables = tables(&memory, rsdp);
    let madt = tables.iter().find(|table| table.starts_with(b"APIC")).unwrap();
    // Three local APICs of 8 bytes and an I/O APIC of 12 behind a header of 44.
    assert_eq!(madt.len(), 44 + 3 * 8 + 12);
    assert_eq!((madt[44 + 2 * 8], madt[44 + 2 * 8 + 3]), (0, 2), "type, and APIC ID");
}

#[test]
fn the_disassembler_reads_every_table_and_compiles_the_dsdt_again() {
    if Command::new("iasl").arg("-v").output().is_err() {
        println!("skipped: the_disassembler_reads_every_table: iasl is not installed");
        return;
    }
    for platform in [platform(64), Platform { serial: false, pci_window_64: 0..0, ..platform(1) }] {
        let (memory, rsdp) = written(&platform);
        let scratch = tempfile::tempdir().unwrap();
        for table in tables(&memory, rsdp) {
            let name = String::from_utf8(table[..4].to_vec()).unwrap();
            let path = scratch.path().join(&name).with_extension("aml");
            fs::write(&path, &table).unwrap();
            let iasl = |arguments: &[&str]| {
                let output =
                    Command::new("iasl").args(arguments).current_dir(&scratch).output().unwrap();
                let text = String::from_utf8_lossy(&output.stdout).into_owned()
                    + &String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{name}: {text}");
                text
            };
            iasl(&["-d", path.to_str().unwrap()]);
            let source = fs::read_to_string(path.with_extension("dsl")).unwrap();
            assert!(!source.contains("Invalid") && !source.contains("incorrect"), "{source}");
            if name == "DSDT" {
                let text = iasl(&["-f", path.with_extension("dsl").to_str().unwrap()]);
                assert!(text.contains("0 Errors, 0 Warnings"), "{text}\n{source}");
                assert!(source.contains("PNP0A03") && source.contains("ACPI0013"));
                assert_eq!(source.contains("PNP0501"), platform.serial);
            }
        }
    }
}
