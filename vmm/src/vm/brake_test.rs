//! Who holds the vCPUs, and when they run.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// vCPUs that only know whether they run.
struct Double(AtomicBool);

impl Halts for Double {
    type Halting = ();

    fn halt(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    fn go_on(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn running() -> Arc<Double> {
    Arc::new(Double(AtomicBool::new(true)))
}

fn runs(vcpus: &Double) -> bool {
    vcpus.0.load(Ordering::SeqCst)
}

fn device(id: &str) -> Holder {
    Holder::Device(id.to_owned())
}

#[test]
fn vcpus_run_when_the_last_holder_has_let_go() {
    let (brake, vcpus) = (Brake::new(), running());
    brake.attach(&vcpus);
    assert_eq!(brake.hold(device("disk0")).0, Change::Stopped);
    assert_eq!(brake.hold(Holder::User).0, Change::None);
    assert_eq!(brake.hold(device("net0")).0, Change::None);
    assert_eq!(brake.release(&Holder::User), Change::None);
    assert_eq!(brake.release(&device("disk0")), Change::None);
    assert!(!runs(&vcpus));
    assert_eq!(brake.release(&device("net0")), Change::GoesOn);
    assert!(runs(&vcpus));
}

#[test]
fn to_hold_twice_is_to_hold_once() {
    let (brake, vcpus) = (Brake::new(), running());
    brake.attach(&vcpus);
    brake.hold(Holder::User);
    brake.hold(Holder::User);
    assert_eq!(brake.release(&Holder::User), Change::GoesOn);
    assert!(runs(&vcpus));
}

#[test]
fn who_holds_nothing_lets_nothing_go() {
    let (brake, vcpus) = (Brake::new(), running());
    brake.attach(&vcpus);
    assert_eq!(brake.release(&Holder::User), Change::None);
    brake.hold(device("disk0"));
    assert_eq!(brake.release(&Holder::User), Change::None);
    assert!(!runs(&vcpus));
}

#[test]
fn a_boot_that_starts_while_somebody_holds_stops_at_once() {
    let (brake, vcpus) = (Brake::new(), running());
    brake.hold(device("disk0"));
    brake.attach(&vcpus);
    assert!(!runs(&vcpus));
    brake.release(&device("disk0"));
    assert!(runs(&vcpus));
}

#[test]
fn nobody_revives_a_boot_that_is_over() {
    let (brake, vcpus) = (Brake::new(), running());
    brake.attach(&vcpus);
    brake.hold(Holder::User);
    brake.detach();
    brake.release(&Holder::User);
    assert!(!runs(&vcpus));
}

#[test]
fn holders_are_told_by_name() {
    let brake = Brake::<Double>::new();
    brake.hold(device("disk0"));
    brake.hold(Holder::User);
    let names: Vec<_> = brake.holders().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["user", "device disk0"]);
}
