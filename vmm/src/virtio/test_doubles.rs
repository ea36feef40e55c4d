//! Stand-ins for the interrupt controller, the doorbells and a device, for tests of the transport.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, Weak};

use super::{Activation, DeviceEvents, DeviceType, Doorbells, QueuePort, VirtioDevice};
use crate::irq::{Event, IrqError, Msi, MsiRoutes};

/// An interrupt controller that remembers what it was told.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) allocated: Mutex<BTreeSet<u32>>,
    pub(super) messages: Mutex<BTreeMap<u32, Msi>>,
    /// Events attached, by their address, and to which GSI.
    pub(super) attached: Mutex<Vec<(u32, usize)>>,
    pub(super) refuse: Mutex<bool>,
}

fn address(event: &Event) -> usize {
    std::ptr::from_ref(event) as usize
}

impl Routes {
    /// The message that `call` would deliver now.
    pub(super) fn delivers(&self, call: &Event) -> Option<Msi> {
        let attached = self.attached.lock().unwrap();
        let (gsi, _) = attached.iter().find(|(_, event)| *event == address(call))?;
        self.messages.lock().unwrap().get(gsi).copied()
    }
}

impl MsiRoutes for Routes {
    fn allocate(&self) -> Result<u32, IrqError> {
        let mut allocated = self.allocated.lock().unwrap();
        let gsi = (24..).find(|gsi| !allocated.contains(gsi)).unwrap();
        if gsi >= 24 + 300 {
            return Err(IrqError::Exhausted(300));
        }
        allocated.insert(gsi);
        Ok(gsi)
    }

    fn free(&self, gsi: u32) {
        assert!(self.allocated.lock().unwrap().remove(&gsi));
        assert!(self.attached.lock().unwrap().iter().all(|(other, _)| *other != gsi));
    }

    fn set_msi(&self, gsi: u32, msi: Msi) -> Result<(), IrqError> {
        if *self.refuse.lock().unwrap() {
            return Err(IrqError::Route { gsi, msi, source: io::ErrorKind::InvalidInput.into() });
        }
        self.messages.lock().unwrap().insert(gsi, msi);
        Ok(())
    }

    fn attach(&self, gsi: u32, call: &Event) -> Result<(), IrqError> {
        let mut attached = self.attached.lock().unwrap();
        assert!(attached.iter().all(|(_, event)| *event != address(call)), "attached twice");
        attached.push((gsi, address(call)));
        // As KVM does: what waited is delivered.
        call.drain();
        Ok(())
    }

    fn detach(&self, gsi: u32, call: &Event) -> Result<(), IrqError> {
        let mut attached = self.attached.lock().unwrap();
        let at = attached.iter().position(|it| *it == (gsi, address(call))).expect("not attached");
        attached.swap_remove(at);
        Ok(())
    }
}

/// Doorbells that remember where they hang.
#[derive(Default)]
pub(super) struct Bells(pub(super) Mutex<BTreeSet<u64>>);

impl Doorbells for Bells {
    fn attach(&self, address: u64, _kick: &Event) -> io::Result<()> {
        assert!(self.0.lock().unwrap().insert(address));
        Ok(())
    }

    fn detach(&self, address: u64, _kick: &Event) -> io::Result<()> {
        assert!(self.0.lock().unwrap().remove(&address));
        Ok(())
    }
}

/// What a device was told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Start(Activation),
    Reset,
    Config(usize, Vec<u8>),
}

/// A blk device with two queues.
pub(super) struct Device {
    pub(super) ports: Vec<QueuePort>,
    pub(super) told: Mutex<Vec<Told>>,
    pub(super) events: Mutex<Option<Weak<dyn DeviceEvents>>>,
}

impl Device {
    pub(super) fn new(queues: usize) -> Arc<Self> {
        let port = || QueuePort {
            kick: Arc::new(Event::new().unwrap()),
            call: Arc::new(Event::new().unwrap()),
            max_size: 256,
        };
        let ports = (0..queues).map(|_| port()).collect();
        Arc::new(Self { ports, told: Mutex::default(), events: Mutex::new(None) })
    }

    pub(super) fn events(&self) -> Arc<dyn DeviceEvents> {
        self.events.lock().unwrap().as_ref().and_then(Weak::upgrade).expect("no transport")
    }
}

impl VirtioDevice for Device {
    fn id(&self) -> &str {
        "disk0"
    }
    fn device_type(&self) -> DeviceType {
        DeviceType::by_name("blk").unwrap()
    }
    fn features(&self) -> u64 {
        1 << 32
    }
    fn queues(&self) -> &[QueuePort] {
        &self.ports
    }
    fn config(&self) -> Vec<u8> {
        (0..36).collect()
    }
    fn write_config(&self, offset: usize, data: &[u8]) {
        self.told.lock().unwrap().push(Told::Config(offset, data.to_vec()));
    }
    fn start(&self, activation: Activation) {
        self.told.lock().unwrap().push(Told::Start(activation));
    }
    fn reset(&self) {
        self.told.lock().unwrap().push(Told::Reset);
    }
    fn attach(&self, events: Weak<dyn DeviceEvents>) {
        *self.events.lock().unwrap() = Some(events);
    }
}
