//! The DSDT: devices that can't be enumerated, and the code that takes the power button's events.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Device, EISAName, Field, FieldAccessType, FieldEntry,
    FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local, Memory32Fixed, Method, Name, Notify,
    OpRegion, OpRegionSpace, Package, Path, ResourceTemplate, Scope, Store,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform};
use crate::arch::layout;
use crate::legacy::{POWER_REGISTERS, PowerRegisters, Rtc, SerialPort};

/// Length of a table's header; revision 2 has 64-bit integers.
const HEADER_LEN: u32 = 36;
const REVISION: u8 = 2;

/// What a control-method power button is notified of when it is pressed (ACPI 6.5 §5.6.6).
const BUTTON_PRESSED: u8 = 0x80;

/// The table for `platform`.
pub(super) fn table(platform: &Platform) -> Sdt {
    let mut code = Vec::new();
    let devices = [processors, pci, motherboard, clock, serial, power];
    devices.iter().for_each(|describe| describe(platform, &mut code));
    let mut dsdt = Sdt::new(*b"DSDT", HEADER_LEN, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    dsdt.append_slice(&code);
    dsdt
}

type Code = dyn AmlSink;

/// A device below `\_SB`, with its hardware ID and what else it has.
fn device(name: &str, id: &dyn Aml, children: &[&dyn Aml], code: &mut Code) {
    let hid = Name::new(Path::new("_HID"), id);
    let mut all: Vec<&dyn Aml> = vec![&hid];
    all.extend(children);
    let device = Device::new(Path::new(name), all);
    Scope::new(Path::new("_SB_"), vec![&device]).to_aml_bytes(code);
}

/// What a device takes of ports, memory and interrupts.
fn resources(items: Vec<&dyn Aml>) -> Name {
    Name::new(Path::new("_CRS"), &ResourceTemplate::new(items))
}

/// A range of ports at a fixed place.
fn ports(first: u16, len: u64) -> IO {
    IO::new(first, first, 1, len.to_le_bytes()[0])
}

/// An interrupt as the ISA bus had them, which an irqfd without resampling is: a pulse.
fn pulse(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}

/// ACPI 6.5 §8.4: a device for each local APIC of the MADT, with the same ID.
fn processors(platform: &Platform, code: &mut Code) {
    for cpu in 0..platform.cpus {
        let uid = Name::new(Path::new("_UID"), &cpu);
        device(&format!("C{cpu:03}"), &"ACPI0007", &[&uid], code);
    }
}

/// The root of PCI segment 0. Its functions have neither PCI Express capabilities nor INTx lines,
/// so it is a conventional bridge and has no routing table.
fn pci(platform: &Platform, code: &mut Code) {
    let window_32 = &layout::PCI_WINDOW_32;
    let bus = AddressSpace::new_bus_number(0_u16, 0);
    let config = ports(layout::PCI_CONFIG_PORTS.start, layout::PCI_CONFIG_PORTS.len() as u64);
    // Both ends are below 4 GiB.
    let (first, last) = (window_32.start as u32, (window_32.end - 1) as u32);
    let cacheable = AddressSpaceCacheable::NotCacheable;
    let low = AddressSpace::new_memory(cacheable, true, first, last, None);
    let mut items: Vec<&dyn Aml> = vec![&bus, &config, &low];
    let window_64 = &platform.pci_window_64;
    let high = (!window_64.is_empty()).then(|| {
        AddressSpace::new_memory(cacheable, true, window_64.start, window_64.end - 1, None)
    });
    items.extend(high.as_ref().map(|high| high as &dyn Aml));
    let crs = resources(items);
    let segment = Name::new(Path::new("_SEG"), &0_u8);
    let base_bus = Name::new(Path::new("_BBN"), &0_u8);
    let uid = Name::new(Path::new("_UID"), &0_u8);
    device("PCI0", &EISAName::new("PNP0A03"), &[&uid, &segment, &base_bus, &crs], code);
}

/// PCI Firmware 3.3 §4.1.2: the memory that MCFG names has to be some motherboard device's.
fn motherboard(_platform: &Platform, code: &mut Code) {
    let ecam = &layout::PCI_ECAM;
    let window = Memory32Fixed::new(true, ecam.start as u32, (ecam.end - ecam.start) as u32);
    device("MBRD", &EISAName::new("PNP0C02"), &[&resources(vec![&window])], code);
}

fn clock(_platform: &Platform, code: &mut Code) {
    let crs = resources(vec![&ports(layout::RTC, Rtc::PORTS)]);
    device("RTC_", &EISAName::new("PNP0B00"), &[&crs], code);
}

fn serial(platform: &Platform, code: &mut Code) {
    if platform.serial {
        let (io, irq) = (ports(layout::COM1, SerialPort::PORTS), pulse(layout::COM1_GSI));
        let uid = Name::new(Path::new("_UID"), &0_u8);
        device("COM1", &EISAName::new("PNP0501"), &[&uid, &resources(vec![&io, &irq])], code);
    }
}

/// The power button, the generic event device (ACPI 6.5 §5.6.9) that says when it was pressed, and
/// the sleep type that powers off.
fn power(_platform: &Platform, code: &mut Code) {
    let uid = Name::new(Path::new("_UID"), &0_u8);
    device("PWRB", &EISAName::new("PNP0C0C"), &[&uid], code);

    let port = layout::ACPI_REGISTERS + POWER_REGISTERS.events;
    let region = OpRegion::new(Path::new("GEDR"), OpRegionSpace::SystemIO, &port, &1_u8);
    let field = Field::new(
        Path::new("GEDR"),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        vec![FieldEntry::Named(*b"EVTS", 8)],
    );
    let events = Local(0);
    let evts = Path::new("EVTS");
    let button = Path::new("\\_SB_.PWRB");
    let take = Store::new(&events, &evts);
    let pressed = Notify::new(&button, &BUTTON_PRESSED);
    let power_button = PowerRegisters::POWER_BUTTON;
    let is_button = And::new(&acpi_tables::aml::ZERO, &events, &power_button);
    let when_pressed = If::new(&is_button, vec![&pressed]);
    let method = Method::new(Path::new("_EVT"), 1, true, vec![&take, &when_pressed]);
    let crs = resources(vec![&pulse(layout::GED_GSI)]);
    device("GED_", &"ACPI0013", &[&uid, &crs, &region, &field, &method], code);

    let s5 = PowerRegisters::S5_TYPE;
    Name::new(Path::new("_S5_"), &Package::new(vec![&s5])).to_aml_bytes(code);
}
