//! Which messages are due after which.

use super::*;

fn told(id: u32, event: u16, value: u16) -> [u8; HEADER] {
    message(id, event, value, &[]).try_into().unwrap()
}

/// All that is due: port, event, value, payload.
fn due(control: &mut Control) -> Vec<(u32, u16, u16, Vec<u8>)> {
    std::iter::from_fn(|| control.next())
        .map(|message| {
            let id = u32::from_le_bytes(message[..4].try_into().unwrap());
            let event = u16::from_le_bytes(message[4..6].try_into().unwrap());
            let value = u16::from_le_bytes(message[6..8].try_into().unwrap());
            (id, event, value, message[8..].to_vec())
        })
        .collect()
}

fn control() -> Control {
    Control::new(["agent".to_owned()].into_iter())
}

#[test]
fn ports_are_made_known_step_by_step() {
    let mut control = control();
    control.resized(Size { columns: 100, rows: 40 });
    assert_eq!(due(&mut control), [], "nobody is there");
    assert!(control.take(told(0, DEVICE_READY, 1)));
    assert_eq!(due(&mut control), [(0, DEVICE_ADD, 1, vec![]), (1, DEVICE_ADD, 1, vec![])]);
    assert!(control.take(told(0, PORT_READY, 1)));
    let console = [
        (0, CONSOLE_PORT, 1, vec![]),
        (0, RESIZE, 0, vec![100, 0, 40, 0]),
        (0, PORT_OPEN, 1, vec![]),
    ];
    assert_eq!(due(&mut control), console);
    assert!(control.take(told(1, PORT_READY, 1)));
    let agent = [(1, PORT_NAME, 1, b"agent".to_vec()), (1, PORT_OPEN, 0, vec![])];
    assert_eq!(due(&mut control), agent);
    control.attached(1, true);
    assert_eq!(due(&mut control), [(1, PORT_OPEN, 1, vec![])]);
}

#[test]
fn a_port_is_open_when_the_guest_says_so() {
    let mut control = control();
    assert!(control.take(told(0, DEVICE_READY, 1)));
    assert!(control.is_open(0) && !control.is_open(1) && !control.is_open(2));
    assert!(control.take(told(1, PORT_OPEN, 1)));
    assert!(control.is_open(1));
    assert!(control.take(told(1, PORT_OPEN, 0)));
    assert!(!control.is_open(1));
}

#[test]
fn after_another_process_all_is_told_again_and_taken_for_open() {
    let mut control = control();
    control.attached(1, true);
    control.resume();
    assert!(control.is_open(1));
    assert_eq!(due(&mut control).last(), Some(&(1, PORT_OPEN, 1, vec![])));
    control.resume();
    assert_eq!(due(&mut control), [], "once");
    control.reset();
    assert!(!control.is_open(1));
}

#[test]
fn a_flood_makes_nothing_grow() {
    let mut control = control();
    assert!(control.take(told(0, DEVICE_READY, 1)));
    for _ in 0..1000 {
        assert!(control.take(told(1, PORT_READY, 1)));
        control.attached(1, true);
    }
    assert!(due(&mut control).len() <= 5);
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let mut control = control();
    assert!(!control.take(told(0, PORT_READY, 1)), "before the driver is there");
    assert!(control.take(told(0, DEVICE_READY, 1)));
    due(&mut control);
    for (id, event) in
        [(2, PORT_READY), (u32::MAX, PORT_OPEN), (0, DEVICE_ADD), (0, 8), (1, 0xffff)]
    {
        assert!(!control.take(told(id, event, 1)), "{id} {event}");
    }
    assert!(!control.is_due());
}
