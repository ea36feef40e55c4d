//! One boot of the machine: a KVM VM with everything on its buses, from power-on to reset.
//!
//! Nothing of it outlives a reset. Memory and remote devices do, and are put into the next one.

use std::io;
use std::sync::Arc;

use kvm_ioctls::{Kvm, VmFd};

use super::devices::Devices;
use super::error::VmError;
use super::serial::SerialLine;
use crate::acpi::{self, Platform};
use crate::arch::{self, Cpuid, EntryPoint, kvm, layout};
use crate::boot::{BootFiles, BootSpec};
use crate::bus::{Bus, BusDevice};
use crate::config::VmConfig;
use crate::irq::{Event, Gsis, MsiRoutes};
use crate::legacy::{I8042, OnPower, PowerRegisters, PowerRequest, Rtc};
use crate::memory::GuestRam;
use crate::pci::{CONFIG_PORTS, ECAM_BUS_SIZE, PciSegment, Windows};
use crate::vcpu::{Buses, Exit, Exits, Start, Vcpus};
use crate::virtio::{Doorbells, VirtioDevice, VirtioPci};

/// What machines are built from, boot after boot.
pub(super) struct Parts<'a> {
    pub(super) kvm: Kvm,
    pub(super) cpuid: Cpuid,
    pub(super) ram: Arc<GuestRam>,
    pub(super) boot: BootFiles,
    pub(super) config: &'a VmConfig,
    pub(super) serial: SerialLine,
    pub(super) devices: Devices,
}

impl Parts<'_> {
    /// Puts kernel, initrd, command line and ACPI tables into empty memory.
    pub(super) fn load(&self) -> Result<EntryPoint, VmError> {
        let platform = Platform {
            cpus: self.config.cpus,
            serial: self.serial.exists(),
            pci_window_64: self.pci_window_64(),
        };
        let rsdp = acpi::write(self.ram.memory(), &platform)?;
        let spec = BootSpec { command_line: &self.config.cmdline, rsdp };
        Ok(self.boot.load(&self.ram, &spec)?)
    }

    fn pci_window_64(&self) -> std::ops::Range<u64> {
        layout::pci_window_64(self.ram.size(), self.cpuid.address_bits())
    }
}

/// A running machine. Dropping it takes it apart.
pub(super) struct Machine {
    // In the order of their end: no vCPU may be running when what it reaches goes.
    vcpus: Arc<Vcpus>,
    _functions: Vec<Arc<VirtioPci>>,
    power: Arc<PowerRegisters>,
    /// What functions know only weakly, and interrupt lines that the kernel holds no count of.
    _buses: Buses,
    _lines: Vec<Arc<Event>>,
}

impl Machine {
    /// Builds the machine around what is in memory already, and lets it run from `entry`.
    pub(super) fn start(
        parts: &Parts<'_>,
        entry: EntryPoint,
        exits: Exits,
    ) -> Result<Self, VmError> {
        let vm = kvm::create_vm(&parts.kvm)?;
        arch::prepare_vm(&vm)?;
        parts.ram.attach(&vm)?;
        let vm = Arc::new(vm);
        let buses = Buses { pio: Arc::new(Bus::new()), mmio: Arc::new(Bus::new()) };
        let (power, lines) = legacy(parts, &vm, &buses, &exits)?;
        let functions = pci(parts, &vm, &buses)?;
        let vcpus = Vcpus::start(&Start {
            vm: &vm,
            ram: &parts.ram,
            cpus: parts.config.cpus,
            cpuid: &parts.cpuid,
            entry,
            buses: buses.clone(),
            exits,
        })?;
        let vcpus = Arc::new(vcpus);
        Ok(Self { vcpus, _functions: functions, power, _buses: buses, _lines: lines })
    }

    /// Presses the power button.
    pub(super) fn press_power_button(&self) {
        self.power.press_power_button();
    }

    /// Its vCPUs, for those who may stop them and let them go on. None may be kept beyond its end.
    pub(super) fn vcpus(&self) -> &Arc<Vcpus> {
        &self.vcpus
    }

    /// Stops every vCPU where it is, for good.
    pub(super) fn stop_vcpus(&self) {
        self.vcpus.pause();
    }
}

/// Puts the devices of a PC that are not on PCI onto the port bus.
fn legacy(
    parts: &Parts<'_>,
    vm: &VmFd,
    buses: &Buses,
    exits: &Exits,
) -> Result<(Arc<PowerRegisters>, Vec<Arc<Event>>), VmError> {
    let exits = exits.clone();
    let on_power: OnPower = Arc::new(move |request| {
        exits.report(match request {
            PowerRequest::Off => Exit::PowerOff,
            PowerRequest::Reset => Exit::Reset,
        });
    });
    let put = |name, port: u16, len, device: Arc<dyn BusDevice>| {
        buses.pio.insert(name, port.into(), len, device)
    };
    let ged = line(vm, "power button", layout::GED_GSI)?;
    let power = Arc::new(PowerRegisters::new(Arc::clone(&on_power), Arc::clone(&ged)));
    put("ACPI registers", layout::ACPI_REGISTERS, PowerRegisters::LEN, power.clone())?;
    put("i8042", layout::I8042, I8042::PORTS, Arc::new(I8042::new(on_power)))?;
    put("RTC", layout::RTC, Rtc::PORTS, Arc::new(Rtc::new()))?;
    let mut lines = vec![ged];
    if parts.serial.exists() {
        let com1 = line(vm, "serial port", layout::COM1_GSI)?;
        if let Some(port) = parts.serial.plug(Arc::clone(&com1))? {
            put("serial port", layout::COM1, crate::legacy::SerialPort::PORTS, port)?;
        }
        lines.push(com1);
    }
    Ok((power, lines))
}

/// An event that is a pulse on an I/O APIC pin.
fn line(vm: &VmFd, line: &'static str, gsi: u32) -> Result<Arc<Event>, VmError> {
    let failed = |source| VmError::Line { line, source };
    let event = Event::new().map_err(failed)?;
    vm.register_irqfd(event.eventfd(), gsi).map_err(|errno| failed(io::Error::from(errno)))?;
    Ok(Arc::new(event))
}

/// Puts every remote device on the PCI bus, in the order of their configuration.
fn pci(parts: &Parts<'_>, vm: &Arc<VmFd>, buses: &Buses) -> Result<Vec<Arc<VirtioPci>>, VmError> {
    let segment =
        PciSegment::new(Windows { low: layout::PCI_WINDOW_32, high: parts.pci_window_64() });
    buses.mmio.insert("PCI ECAM", layout::PCI_ECAM.start, ECAM_BUS_SIZE, segment.ecam())?;
    let ports = CONFIG_PORTS;
    let len = ports.end - ports.start;
    buses.pio.insert("PCI configuration ports", ports.start, len, segment.config_ports())?;
    let routes: Arc<dyn MsiRoutes> = Arc::new(Gsis::new(Arc::clone(vm)));
    let mut functions = Vec::new();
    for remote in parts.devices.remotes() {
        let device: Arc<dyn VirtioDevice> = remote.clone();
        let doorbells: Arc<dyn Doorbells> = vm.clone();
        let function = VirtioPci::new(device, Arc::clone(&routes), doorbells, &buses.mmio)?;
        let address = segment.add(function.clone())?;
        tracing::info!("device {} is at PCI address {address}", remote.id());
        functions.push(function);
    }
    Ok(functions)
}
