//! Interrupts and notifications that go from kernel to process and back without the VMM.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use atoll::arch::layout;
use atoll::irq::{Event, Gsis, Msi, MsiRoutes};
use kvm_ioctls::{IoEventAddress, NoDatamatch};

use crate::code::{load_idt, out8, set_stack, store, wait_for_interrupts};
use crate::guest::{Guest, MMIO, PATIENCE, PORTS, POWER, Running, guest};

const LOCAL_APIC: u32 = layout::LOCAL_APIC as u32;
const IOAPIC: u32 = layout::IOAPIC as u32;
const IDT: u32 = 0x20_0000;
const IDT_POINTER: u32 = 0x20_1000;
const HANDLERS: u32 = 0x20_2000;
const STACK: u32 = 0x30_0000;
const HANDLER_LEN: u32 = 0x40;
/// Vectors that have a handler, which writes the vector to [`PORTS`].
const VECTORS: std::ops::Range<u8> = 0x40..0x48;

/// A guest that has its local APIC on, does `setup`, says so at `PORTS + 1` and waits.
fn listening_guest(setup: &[Vec<u8>]) -> Option<Guest> {
    let payload = [
        &[set_stack(STACK), load_idt(IDT_POINTER), store(LOCAL_APIC + 0xf0, 0x1ff)],
        setup,
        &[out8(PORTS + 1, 0), wait_for_interrupts()],
    ]
    .concat();
    let guest = guest(&payload)?;
    guest.write(IDT_POINTER, &[&0x7ff_u16.to_le_bytes()[..], &IDT.to_le_bytes()[..]].concat());
    for vector in VECTORS {
        let handler = HANDLERS + u32::from(vector) * HANDLER_LEN;
        let end_of_interrupt = store(LOCAL_APIC + 0xb0, 0);
        // It never returns but waits for the next: KVM's pagetable-based mode has no `iret` here.
        let wait = [set_stack(STACK), wait_for_interrupts()].concat();
        guest.write(handler, &[out8(PORTS, vector), end_of_interrupt, wait].concat());
        // An interrupt gate: offset, code selector, present 32-bit gate, offset.
        let [b0, b1, b2, b3] = handler.to_le_bytes();
        guest.write(IDT + u32::from(vector) * 8, &[b0, b1, 0x10, 0, 0, 0x8e, b2, b3]);
    }
    Some(guest)
}

/// Starts it, and waits until it listens.
fn start(guest: &Guest) -> Running {
    let running = guest.start(1);
    assert_eq!(running.ports.recv_timeout(PATIENCE), Ok((1, vec![0])));
    running
}

fn expect_vector(running: &Running, vector: u8) {
    let write = running.ports.recv_timeout(PATIENCE);
    assert_eq!(write, Ok((0, vec![vector])), "{:?}", running.exit());
}

fn expect_silence(running: &Running) {
    assert!(running.ports.recv_timeout(Duration::from_millis(30)).is_err());
}

/// A message for CPU 0, fixed delivery, edge.
fn msi(vector: u8) -> Msi {
    Msi { address: layout::LOCAL_APIC, data: vector.into() }
}

#[test]
fn an_eventfd_on_an_io_apic_pin_interrupts_the_guest() {
    // Redirection entry of the serial port's pin: its vector, edge, not masked, to CPU 0.
    let entry = 0x10 + 2 * layout::COM1_GSI;
    let setup = [
        store(IOAPIC, entry),
        store(IOAPIC + 0x10, 0x41),
        store(IOAPIC, entry + 1),
        store(IOAPIC + 0x10, 0),
    ];
    let Some(guest) = listening_guest(&setup) else { return };
    let line = Event::new().unwrap();
    guest.vm.register_irqfd(line.eventfd(), layout::COM1_GSI).unwrap();
    let running = start(&guest);
    for _ in 0..3 {
        line.signal();
        expect_vector(&running, 0x41);
    }
}

#[test]
fn an_eventfd_on_a_message_route_interrupts_the_guest_with_the_vector_of_now() {
    let Some(guest) = listening_guest(&[]) else { return };
    let gsis = Gsis::new(Arc::clone(&guest.vm));
    let (gsi, call) = (gsis.allocate().unwrap(), Event::new().unwrap());
    gsis.set_msi(gsi, msi(0x42)).unwrap();
    gsis.attach(gsi, &call).unwrap();
    let running = start(&guest);
    call.signal();
    expect_vector(&running, 0x42);
    gsis.set_msi(gsi, msi(0x43)).unwrap();
    call.signal();
    expect_vector(&running, 0x43);
}

#[test]
fn a_new_route_leaves_the_others_and_the_io_apic_as_they_are() {
    let entry = 0x10 + 2 * layout::COM1_GSI;
    let setup = [store(IOAPIC, entry), store(IOAPIC + 0x10, 0x41)];
    let Some(guest) = listening_guest(&setup) else { return };
    let line = Event::new().unwrap();
    guest.vm.register_irqfd(line.eventfd(), layout::COM1_GSI).unwrap();
    let gsis = Gsis::new(Arc::clone(&guest.vm));
    let calls: Vec<_> = (0x42..0x46)
        .map(|vector| {
            let (gsi, call) = (gsis.allocate().unwrap(), Event::new().unwrap());
            gsis.set_msi(gsi, msi(vector)).unwrap();
            gsis.attach(gsi, &call).unwrap();
            (vector, call)
        })
        .collect();
    let running = start(&guest);
    for (vector, call) in &calls {
        call.signal();
        expect_vector(&running, *vector);
    }
    line.signal();
    expect_vector(&running, 0x41);
}

#[test]
fn what_is_signalled_while_masked_is_pending_and_arrives_once_when_unmasked() {
    let Some(guest) = listening_guest(&[]) else { return };
    let gsis = Gsis::new(Arc::clone(&guest.vm));
    let (gsi, call) = (gsis.allocate().unwrap(), Event::new().unwrap());
    gsis.set_msi(gsi, msi(0x42)).unwrap();
    let running = start(&guest);
    for _ in 0..3 {
        assert!(!call.is_signalled());
        call.signal();
        call.signal();
        assert!(call.is_signalled(), "pending");
        expect_silence(&running);
        gsis.attach(gsi, &call).unwrap();
        expect_vector(&running, 0x42);
        expect_silence(&running);
        call.signal();
        expect_vector(&running, 0x42);
        gsis.detach(gsi, &call).unwrap();
    }
}

#[test]
fn a_write_to_an_ioeventfd_signals_it_and_passes_by_the_bus() {
    const DOORBELL: u32 = MMIO + 0x100;
    let payload = [store(DOORBELL, 7), store(MMIO, 1), out8(POWER, 0)];
    let Some(guest) = guest(&payload) else { return };
    let kick = Event::new().unwrap();
    let address = IoEventAddress::Mmio(DOORBELL.into());
    guest.vm.register_ioevent(kick.eventfd(), &address, NoDatamatch).unwrap();
    let running = guest.start(1);
    running.end();
    assert!(kick.is_signalled());
    let writes: Vec<_> = running.mmio.try_iter().collect();
    assert_eq!(writes, [(0, vec![1, 0, 0, 0])]);
}

#[test]
fn a_doorbell_rung_from_the_guest_comes_back_as_an_interrupt() {
    const DOORBELL: u32 = MMIO + 0x200;
    let Some(guest) = listening_guest(&[store(DOORBELL, 0)]) else { return };
    let gsis = Gsis::new(Arc::clone(&guest.vm));
    let (gsi, call) = (gsis.allocate().unwrap(), Event::new().unwrap());
    gsis.set_msi(gsi, msi(0x47)).unwrap();
    gsis.attach(gsi, &call).unwrap();
    let kick = Event::new().unwrap();
    let address = IoEventAddress::Mmio(DOORBELL.into());
    guest.vm.register_ioevent(kick.eventfd(), &address, NoDatamatch).unwrap();
    let device = thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE;
        while !kick.drain() {
            assert!(Instant::now() < deadline, "no kick");
            thread::yield_now();
        }
        call.signal();
        call
    });
    let running = start(&guest);
    let _call_stays_open = device.join().unwrap();
    expect_vector(&running, 0x47);
}
