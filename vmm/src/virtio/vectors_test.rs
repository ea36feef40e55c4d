//! Masks, pending bits and routes, against an interrupt controller that remembers.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test, as it should")]

use super::super::test_doubles::Routes;
use super::*;

const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;

struct Rig {
    routes: Arc<Routes>,
    calls: Vec<Arc<Event>>,
    vectors: Vectors,
}

/// Two queues and the configuration change.
fn rig() -> Rig {
    let routes = Arc::new(Routes::default());
    let calls: Vec<_> = (0..3).map(|_| Arc::new(Event::new().unwrap())).collect();
    let vectors = Vectors::new("disk0", routes.clone(), calls.iter().cloned()).unwrap();
    Rig { routes, calls, vectors }
}

fn message(data: u32) -> Msi {
    Msi { address: 0xfee0_0000, data }
}

impl Rig {
    fn program(&mut self, vector: u64, data: u32) {
        self.vectors.write_table(vector * 16, &0xfee0_0000_u32.to_le_bytes());
        self.vectors.write_table(vector * 16 + 8, &data.to_le_bytes());
    }

    fn mask(&mut self, vector: u64, masked: bool) {
        self.vectors.write_table(vector * 16 + 12, &u32::from(masked).to_le_bytes());
    }

    fn pending(&self) -> u64 {
        let mut bits = [0; 8];
        self.vectors.read_pending(0, &mut bits);
        u64::from_le_bytes(bits)
    }

    fn delivers(&self, source: usize) -> Option<Msi> {
        self.routes.delivers(&self.calls[source])
    }
}

#[test]
fn an_event_is_attached_exactly_while_its_vector_may_fire() {
    let mut rig = rig();
    rig.vectors.assign(Source::Queue(0), Some(1));
    rig.program(1, 0x41);
    rig.mask(1, false);
    assert_eq!(rig.delivers(0), None, "MSI-X is off");
    rig.vectors.set_control(ENABLE);
    assert_eq!(rig.delivers(0), Some(message(0x41)));
    rig.vectors.set_control(ENABLE | MASK_ALL);
    assert_eq!(rig.delivers(0), None);
    rig.vectors.set_control(ENABLE);
    rig.mask(1, true);
    assert_eq!(rig.delivers(0), None);
    rig.program(1, 0x42);
    rig.mask(1, false);
    assert_eq!(rig.delivers(0), Some(message(0x42)), "the new message");
    rig.vectors.set_control(0);
    assert_eq!(rig.delivers(0), None);
}

#[test]
fn what_is_signalled_while_masked_is_pending_and_delivered_at_unmask() {
    let mut rig = rig();
    rig.vectors.assign(Source::Queue(1), Some(2));
    rig.vectors.set_control(ENABLE);
    rig.program(2, 0x43);
    rig.calls[1].signal();
    assert_eq!(rig.pending(), 0b100);
    assert_eq!(rig.pending(), 0b100, "reading does not take it");
    rig.mask(2, false);
    assert_eq!(rig.delivers(1), Some(message(0x43)));
    assert_eq!(rig.pending(), 0);
}

#[test]
fn a_signal_without_a_vector_is_nobodys_pending_bit() {
    let mut rig = rig();
    rig.vectors.set_control(ENABLE);
    rig.calls[0].signal();
    assert_eq!(rig.pending(), 0);
}

#[test]
fn sources_may_share_a_vector() {
    let mut rig = rig();
    for source in [Source::Config, Source::Queue(0), Source::Queue(1)] {
        rig.vectors.assign(source, Some(0));
    }
    rig.program(0, 0x50);
    rig.vectors.set_control(ENABLE);
    rig.mask(0, false);
    assert!((0..3).all(|source| rig.delivers(source) == Some(message(0x50))));
    rig.mask(0, true);
    rig.calls[2].signal();
    assert_eq!(rig.pending(), 1);
}

#[test]
fn a_source_moves_to_another_vector_with_what_it_has_pending() {
    let mut rig = rig();
    rig.vectors.set_control(ENABLE);
    rig.program(0, 0x50);
    rig.program(1, 0x51);
    rig.mask(1, false);
    rig.vectors.assign(Source::Queue(0), Some(0));
    rig.calls[0].signal();
    rig.vectors.assign(Source::Queue(0), Some(1));
    assert_eq!(rig.delivers(0), Some(message(0x51)));
    rig.vectors.assign(Source::Queue(0), None);
    assert_eq!(rig.delivers(0), None);
}

#[test]
fn a_message_rewritten_while_unmasked_takes_effect() {
    let mut rig = rig();
    rig.vectors.assign(Source::Config, Some(0));
    rig.vectors.set_control(ENABLE);
    rig.program(0, 0x50);
    rig.mask(0, false);
    rig.program(0, 0x60);
    assert_eq!(rig.delivers(2), Some(message(0x60)));
}

#[test]
fn a_route_that_the_kernel_refuses_is_tried_again_with_the_next_message() {
    let mut rig = rig();
    *rig.routes.refuse.lock().unwrap() = true;
    rig.vectors.assign(Source::Queue(0), Some(0));
    rig.vectors.set_control(ENABLE);
    rig.program(0, 0x50);
    rig.mask(0, false);
    assert_eq!(rig.delivers(0), None);
    *rig.routes.refuse.lock().unwrap() = false;
    rig.program(0, 0x51);
    assert_eq!(rig.delivers(0), Some(message(0x51)));
}

#[test]
fn vectors_and_sources_that_do_not_exist_are_ignored() {
    let mut rig = rig();
    rig.vectors.set_control(ENABLE);
    rig.vectors.assign(Source::Queue(77), Some(0));
    rig.vectors.assign(Source::Queue(0), Some(77));
    rig.program(77, 1);
    rig.mask(77, false);
    let mut bits = [0xff; 8];
    rig.vectors.read_pending(u64::MAX, &mut bits);
    assert_eq!(bits, [0; 8]);
}

#[test]
fn everything_is_given_back_in_the_end() {
    let mut rig = rig();
    rig.vectors.assign(Source::Queue(0), Some(0));
    rig.vectors.set_control(ENABLE);
    rig.program(0, 0x50);
    rig.mask(0, false);
    drop(rig.vectors);
    assert!(rig.routes.allocated.lock().unwrap().is_empty());
    assert!(rig.routes.attached.lock().unwrap().is_empty());
}

#[test]
fn running_out_of_routes_gives_back_what_was_taken() {
    let routes = Arc::new(Routes::default());
    let calls = (0..301).map(|_| Arc::new(Event::new().unwrap()));
    assert!(Vectors::new("net0", routes.clone(), calls).is_err());
    assert!(routes.allocated.lock().unwrap().is_empty());
}
