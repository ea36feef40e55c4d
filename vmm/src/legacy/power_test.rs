//! What the guest can ask of the machine's power, and what it is told.

use std::sync::mpsc::{Receiver, channel};

use super::*;

fn registers() -> (PowerRegisters, Receiver<PowerRequest>, Arc<Event>) {
    let (sender, requests) = channel();
    let interrupt = Arc::new(Event::new().unwrap());
    let power: OnPower = Arc::new(move |request| sender.send(request).unwrap());
    (PowerRegisters::new(power, Arc::clone(&interrupt)), requests, interrupt)
}

#[test]
fn s5_powers_off_and_other_sleep_states_do_nothing() {
    let (registers, requests, _interrupt) = registers();
    let sleep = u64::from(OFFSETS.sleep_control);
    registers.write(sleep, &[5 << 2]);
    registers.write(sleep, &[SLEEP_ENABLE | 3 << 2]);
    registers.write(sleep, &[SLEEP_ENABLE | 5 << 2, 0]);
    assert!(requests.try_recv().is_err());
    registers.write(sleep, &[SLEEP_ENABLE | 5 << 2]);
    assert_eq!(requests.try_recv(), Ok(PowerRequest::Off));
}

#[test]
fn the_reset_register_resets_by_its_value_only() {
    let (registers, requests, _interrupt) = registers();
    registers.write(u64::from(OFFSETS.reset), &[0]);
    assert!(requests.try_recv().is_err());
    registers.write(u64::from(OFFSETS.reset), &[PowerRegisters::RESET_VALUE]);
    assert_eq!(requests.try_recv(), Ok(PowerRequest::Reset));
}

#[test]
fn the_power_button_raises_the_interrupt_and_is_read_once() {
    let (registers, _requests, interrupt) = registers();
    registers.press_power_button();
    assert!(interrupt.drain());
    let mut events = [0];
    registers.read(u64::from(OFFSETS.events), &mut events);
    assert_eq!(events, [PowerRegisters::POWER_BUTTON]);
    registers.read(u64::from(OFFSETS.events), &mut events);
    assert_eq!(events, [0]);
}
