//! The tables without code: FADT, MADT and MCFG.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform};
use crate::arch::layout;
use crate::legacy::{POWER_REGISTERS, PowerRegisters, RTC_CENTURY};

/// IAPC_BOOT_ARCH (ACPI 6.5, table 5.11): no VGA to look for, and neither an 8042 nor a legacy
/// device; the clock, which has its own bit, is there.
const NO_VGA: u16 = 1 << 2;

/// ACPI 6.5 §5.2.9. It is what tells the guest that the hardware is reduced, and how to switch it
/// off and reset it.
pub(super) fn fadt(dsdt: u64) -> FADT {
    let register = |offset: u16| {
        let address = u64::from(layout::ACPI_REGISTERS + offset);
        GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, address)
    };
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::Wbinvd)
        // The power button is a device of its own, and there is no sleep button.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    fadt.century = RTC_CENTURY;
    fadt.iapc_boot_arch = NO_VGA.into();
    fadt.reset_reg = register(POWER_REGISTERS.reset);
    fadt.reset_value = PowerRegisters::RESET_VALUE;
    fadt.sleep_control_reg = register(POWER_REGISTERS.sleep_control);
    fadt.sleep_status_reg = register(POWER_REGISTERS.sleep_status);
    fadt.finalize()
}

/// ACPI 6.5 §5.2.12. Its flag for a pair of 8259s stays clear: interrupts go by the I/O APIC, from
/// the first on, and ISA's are where they always were.
pub(super) fn madt(platform: &Platform) -> MADT {
    // Both stand below 4 GiB, in the hole.
    let local = LocalInterruptController::Address(layout::LOCAL_APIC as u32);
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, local);
    for cpu in 0..platform.cpus {
        madt.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IOAPIC as u32, 0));
    madt
}

/// PCI Firmware 3.3 §4.1.2: the configuration space of segment 0, which has one bus.
pub(super) fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(layout::PCI_ECAM.start, 0, 0, 0);
    mcfg
}
