//! What is said of a guest's end.

use std::sync::mpsc;

use super::*;

#[test]
fn only_the_first_report_counts() {
    let (sender, receiver) = mpsc::channel();
    let exits = Exits::new(move |exit| sender.send(exit).unwrap());
    assert!(!exits.reported());
    exits.report(Exit::PowerOff);
    exits.report(Exit::Reset);
    assert!(exits.reported());
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [Exit::PowerOff]);
}

#[test]
fn a_crash_names_vcpu_rip_and_reason() {
    let crash = Crash { vcpu: 2, rip: Some(0xffff_0000), reason: CpuStop::TripleFault };
    assert_eq!(
        crash.to_string(),
        "the guest crashed: vCPU 2 at RIP 0xffff0000 had a triple fault (KVM_EXIT_SHUTDOWN)"
    );
    let reason = CpuStop::InternalError { suberror: 1, data: vec![] };
    assert_eq!(
        Crash { vcpu: 0, rip: None, reason }.to_string(),
        "the guest crashed: vCPU 0 ran into something that this host's KVM can't do \
         (KVM_EXIT_INTERNAL_ERROR, instruction emulation, hexadecimal data [])"
    );
}
