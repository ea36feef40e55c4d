//! The GSIs of one KVM VM: which are taken, where each leads, and the routing table KVM has of it.
//!
//! Knows nothing of vectors or masks. The table always holds the fixed routes of the PIC and the
//! IOAPIC, since KVM replaces all of it at once.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;

use super::{Event, IrqError, Msi, MsiRoutes};

/// Pins of the in-kernel IOAPIC; GSIs from here on are free for messages.
const IOAPIC_PINS: u32 = 24;
/// GSIs on the two cascaded PICs, and on each of them.
const PIC_PINS: u32 = 16;
const PINS_PER_PIC: u32 = 8;
/// First GSI that is nobody's. KVM takes 4096 routes, of which the fixed ones need 40; GSIs up to
/// here leave room for them.
const END: u32 = 4096 - PIC_PINS;

/// The interrupt routes of one KVM VM.
pub struct Gsis {
    vm: Arc<VmFd>,
    /// GSIs taken, and the message each delivers once it is known.
    taken: Mutex<BTreeMap<u32, Option<Msi>>>,
}

impl Gsis {
    /// The routes of `vm`, whose in-kernel irqchip exists: the fixed ones only, at first.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self { vm, taken: Mutex::default() }
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<u32, Option<Msi>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, taken: &BTreeMap<u32, Option<Msi>>) -> io::Result<()> {
        let table = KvmIrqRouting::from_entries(&entries(taken)).map_err(io::Error::other)?;
        self.vm.set_gsi_routing(&table).map_err(io::Error::from)
    }
}

impl MsiRoutes for Gsis {
    fn allocate(&self) -> Result<u32, IrqError> {
        let mut taken = self.taken();
        let gsi = (IOAPIC_PINS..END)
            .find(|gsi| !taken.contains_key(gsi))
            .ok_or(IrqError::Exhausted(END - IOAPIC_PINS))?;
        taken.insert(gsi, None);
        Ok(gsi)
    }

    fn free(&self, gsi: u32) {
        // A route without events is harmless, so the table is published with the next change.
        self.taken().remove(&gsi);
    }

    fn set_msi(&self, gsi: u32, msi: Msi) -> Result<(), IrqError> {
        let mut taken = self.taken();
        if taken.insert(gsi, Some(msi)) == Some(Some(msi)) {
            return Ok(());
        }
        self.publish(&taken).map_err(|source| {
            taken.insert(gsi, None);
            IrqError::Route { gsi, msi, source }
        })
    }

    fn attach(&self, gsi: u32, call: &Event) -> Result<(), IrqError> {
        self.vm.register_irqfd(call.eventfd(), gsi).map_err(|errno| IrqError::Irqfd {
            gsi,
            doing: "attaching an eventfd to",
            source: errno.into(),
        })?;
        // KVM delivers what it found signalled but leaves the count, which would read as pending
        // once the vector is masked. What is signalled from now on KVM takes itself, so nothing is
        // lost by emptying it.
        call.drain();
        Ok(())
    }

    fn detach(&self, gsi: u32, call: &Event) -> Result<(), IrqError> {
        // Before Linux 5.11 KVM never empties an attached eventfd: its count is of interrupts that
        // were delivered.
        call.drain();
        self.vm.unregister_irqfd(call.eventfd(), gsi).map_err(|errno| IrqError::Irqfd {
            gsi,
            doing: "detaching an eventfd from",
            source: errno.into(),
        })
    }
}

/// The whole table: the fixed routes as KVM_CREATE_IRQCHIP makes them, then every known message.
fn entries(taken: &BTreeMap<u32, Option<Msi>>) -> Vec<kvm_irq_routing_entry> {
    let pic = (0..PIC_PINS).map(|gsi| {
        let chip = if gsi < PINS_PER_PIC { KVM_IRQCHIP_PIC_MASTER } else { KVM_IRQCHIP_PIC_SLAVE };
        fixed(gsi, chip, gsi % PINS_PER_PIC)
    });
    let ioapic = (0..IOAPIC_PINS).map(|gsi| fixed(gsi, KVM_IRQCHIP_IOAPIC, gsi));
    let messages = taken.iter().filter_map(|(&gsi, &msi)| Some(message(gsi, msi?)));
    pic.chain(ioapic).chain(messages).collect()
}

fn fixed(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            irqchip: kvm_irq_routing_irqchip { irqchip, pin },
        },
        ..Default::default()
    }
}

fn message(gsi: u32, msi: Msi) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            msi: kvm_irq_routing_msi {
                address_lo: msi.address as u32,
                address_hi: (msi.address >> 32) as u32,
                data: msi.data,
                ..Default::default()
            },
        },
        ..Default::default()
    }
}

#[cfg(test)]
#[path = "gsis_test.rs"]
mod tests;
