//! Routes and eventfds, on whatever KVM the machine has.

use kvm_ioctls::{Kvm, VcpuFd};

use super::*;

struct Rig {
    gsis: Gsis,
    vcpu: VcpuFd,
}

/// A VM with one vCPU whose local APIC takes interrupts; none where there is no KVM.
fn rig() -> Option<Rig> {
    let Ok(kvm) = Kvm::new() else {
        eprintln!("skipped: /dev/kvm can't be opened");
        return None;
    };
    let vm = Arc::new(kvm.create_vm().unwrap());
    vm.create_irq_chip().unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    let mut lapic = vcpu.get_lapic().unwrap();
    // Spurious interrupt vector register: APIC software enabled (Intel SDM 3A §11.9).
    lapic.regs[0xf1] |= 1;
    vcpu.set_lapic(&lapic).unwrap();
    Some(Rig { gsis: Gsis::new(vm), vcpu })
}

fn message(vector: u8) -> Msi {
    Msi { address: 0xfee0_0000, data: u32::from(vector) }
}

impl Rig {
    /// Whether `vector` is requested in the local APIC, however long a busy machine takes for it.
    fn is_requested(&self, vector: u8) -> bool {
        self.is_requested_within(5000, vector)
    }

    /// Whether it stays away for a moment.
    fn is_not_requested(&self, vector: u8) -> bool {
        !self.is_requested_within(50, vector)
    }

    fn is_requested_within(&self, looks: u32, vector: u8) -> bool {
        let requested = || {
            let lapic = self.vcpu.get_lapic().unwrap();
            let register = 0x200 + usize::from(vector / 32) * 0x10 + usize::from(vector % 32 / 8);
            lapic.regs[register] as u8 & (1 << (vector % 8)) != 0
        };
        (0..looks).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            requested()
        })
    }
}

#[test]
fn gsis_are_taken_above_the_ioapic_and_given_back() {
    let Some(Rig { gsis, .. }) = rig() else { return };
    assert_eq!(gsis.allocate().unwrap(), 24);
    assert_eq!(gsis.allocate().unwrap(), 25);
    gsis.free(24);
    assert_eq!(gsis.allocate().unwrap(), 24);
}

#[test]
fn as_many_routes_as_kvm_takes_can_be_had_and_no_more() {
    let Some(Rig { gsis, .. }) = rig() else { return };
    let mut last = 0;
    while let Ok(gsi) = gsis.allocate() {
        gsis.taken().insert(gsi, Some(message(0x40)));
        last = gsi;
    }
    gsis.set_msi(last, message(0x41)).unwrap();
    assert!(matches!(gsis.allocate(), Err(IrqError::Exhausted(_))));
}

#[test]
fn the_fixed_routes_stay_with_the_messages() {
    let table = entries(&BTreeMap::from([(30, Some(message(0x41))), (31, None)]));
    assert_eq!(table.len(), 16 + 24 + 1);
    assert_eq!(table.iter().filter(|entry| entry.gsi == 4).count(), 2, "PIC and IOAPIC");
    assert_eq!(table.last().unwrap().gsi, 30);
}

#[test]
fn a_signalled_event_becomes_the_interrupt_of_its_route() {
    let Some(rig) = rig() else { return };
    let gsi = rig.gsis.allocate().unwrap();
    let call = Event::new().unwrap();
    rig.gsis.set_msi(gsi, message(0x51)).unwrap();
    rig.gsis.attach(gsi, &call).unwrap();
    assert!(rig.is_not_requested(0x51));
    call.signal();
    assert!(rig.is_requested(0x51));
    // Another message, the same event.
    rig.gsis.set_msi(gsi, message(0x62)).unwrap();
    call.signal();
    assert!(rig.is_requested(0x62));
}

#[test]
fn what_is_signalled_while_detached_waits_and_is_delivered_once() {
    let Some(rig) = rig() else { return };
    let gsi = rig.gsis.allocate().unwrap();
    let call = Event::new().unwrap();
    rig.gsis.set_msi(gsi, message(0x51)).unwrap();
    rig.gsis.attach(gsi, &call).unwrap();
    rig.gsis.detach(gsi, &call).unwrap();
    call.signal();
    assert!(rig.is_not_requested(0x51));
    assert!(call.is_signalled(), "pending");
    rig.gsis.attach(gsi, &call).unwrap();
    assert!(rig.is_requested(0x51));
    assert!(!call.is_signalled(), "no longer pending");
    rig.gsis.detach(gsi, &call).unwrap();
    assert!(!call.is_signalled(), "delivered interrupts are not pending");
}

#[test]
fn several_events_may_share_a_gsi() {
    let Some(rig) = rig() else { return };
    let gsi = rig.gsis.allocate().unwrap();
    let calls = [Event::new().unwrap(), Event::new().unwrap()];
    rig.gsis.set_msi(gsi, message(0x51)).unwrap();
    for call in &calls {
        rig.gsis.attach(gsi, call).unwrap();
    }
    calls[1].signal();
    assert!(rig.is_requested(0x51));
}

#[test]
fn a_gsi_that_nobody_attached_can_not_be_detached_into_trouble() {
    let Some(rig) = rig() else { return };
    // KVM takes a detach of what is not there as done.
    rig.gsis.detach(24, &Event::new().unwrap()).unwrap();
}
