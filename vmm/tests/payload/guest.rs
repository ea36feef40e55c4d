//! A guest of a few instructions: memory, interrupt controllers, vCPUs, and buses that remember.

use std::fs::File;
use std::io::Write as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll::arch::{self, Cpuid, EntryPoint, Protocol, kvm};
use atoll::bus::{Bus, BusDevice};
use atoll::memory::{GuestRam, MemorySpec};
use atoll::vcpu::{Buses, Exit, Exits, Start, Vcpus};
use kvm_ioctls::{Kvm, VmFd};
use vm_memory::{Bytes, GuestAddress};

/// Where a payload is and starts.
pub(crate) const CODE: u32 = 0x10_0000;
/// Ports that remember.
pub(crate) const PORTS: u16 = 0x1000;
/// A write of anything here ends the guest as a power-off does.
pub(crate) const POWER: u16 = 0x5000;
/// Memory that remembers, where no RAM is.
pub(crate) const MMIO: u32 = 0xd000_0000;
/// Long enough for anything, on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A write as a bus saw it.
pub(crate) type Write = (u64, Vec<u8>);

/// Remembers writes, and reads as the offset and what follows it.
struct Recorder(Mutex<Sender<Write>>);

impl BusDevice for Recorder {
    fn read(&self, offset: u64, data: &mut [u8]) {
        for (value, byte) in (offset..).zip(data) {
            *byte = value as u8;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let _test_ended = self.0.lock().unwrap().send((offset, data.to_vec()));
    }
}

struct PowerSwitch(Exits);

impl BusDevice for PowerSwitch {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _offset: u64, _data: &[u8]) {
        self.0.report(Exit::PowerOff);
    }
}

/// A guest that has not started.
pub(crate) struct Guest {
    pub(crate) vm: Arc<VmFd>,
    pub(crate) ram: Arc<GuestRam>,
    kvm: Kvm,
}

/// A guest that has.
pub(crate) struct Running {
    pub(crate) vcpus: Vcpus,
    pub(crate) ports: Receiver<Write>,
    pub(crate) mmio: Receiver<Write>,
    exits: Receiver<Exit>,
}

/// A guest with `payload` at [`CODE`]; `None`, once said, where there is no KVM.
pub(crate) fn guest(payload: &[Vec<u8>]) -> Option<Guest> {
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        let test = std::thread::current();
        let test = test.name().unwrap_or("a payload test");
        // Past the test runner's capture, so that it is seen and counted.
        let message = format!("skipped: {test}: cannot open /dev/kvm: {error}\n");
        let _nobody_reads = std::io::stdout().write_all(message.as_bytes());
        return None;
    }
    let kvm = kvm::open(4).unwrap();
    let vm = Arc::new(kvm::create_vm(&kvm).unwrap());
    let spec = MemorySpec { size: 64 << 20, hugepages: None, prefault: false };
    let ram = Arc::new(GuestRam::new(&spec).unwrap());
    ram.attach(&vm).unwrap();
    arch::prepare_vm(&vm).unwrap();
    arch::write_boot_tables(ram.memory(), Protocol::Pvh).unwrap();
    let guest = Guest { vm, ram, kvm };
    guest.write(CODE, &payload.concat());
    Some(guest)
}

impl Guest {
    /// Puts bytes into its memory.
    pub(crate) fn write(&self, address: u32, bytes: &[u8]) {
        self.ram.memory().write_slice(bytes, GuestAddress(address.into())).unwrap();
    }

    /// Starts its vCPUs.
    pub(crate) fn start(&self, cpus: u8) -> Running {
        let (pio, mmio) = (Arc::new(Bus::new()), Arc::new(Bus::new()));
        let (exit_sender, exits) = channel();
        // Shared, as a sink is called from any thread.
        let exit_sender = Mutex::new(exit_sender);
        let sink = Exits::new(move |exit| {
            let _test_ended = exit_sender.lock().unwrap().send(exit);
        });
        let ports = record(&pio, PORTS.into());
        let writes = record(&mmio, MMIO.into());
        pio.insert("power", POWER.into(), 1, Arc::new(PowerSwitch(sink.clone()))).unwrap();
        let vcpus = Vcpus::start(&Start {
            vm: &self.vm,
            ram: &self.ram,
            cpus,
            cpuid: &Cpuid::supported(&self.kvm, cpus).unwrap(),
            entry: EntryPoint { protocol: Protocol::Pvh, address: CODE.into(), boot_data: 0 },
            buses: Buses { pio, mmio },
            exits: sink,
        });
        Running { vcpus: vcpus.unwrap(), ports, mmio: writes, exits }
    }

    /// A number in its memory.
    pub(crate) fn read(&self, address: u32) -> u32 {
        self.ram.memory().read_obj(GuestAddress(address.into())).unwrap()
    }
}

impl Running {
    /// Waits for its end.
    pub(crate) fn end(&self) -> Exit {
        self.exits.recv_timeout(PATIENCE).unwrap()
    }

    /// Its end, if it has ended by now.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.exits.try_recv().ok()
    }
}

fn record(bus: &Bus, start: u64) -> Receiver<Write> {
    let (sender, receiver) = channel();
    bus.insert("recorder", start, 0x1000, Arc::new(Recorder(Mutex::new(sender)))).unwrap();
    receiver
}
