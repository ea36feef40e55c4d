//! Backends that come and go: a thousand times, and nothing is left of any.

use atoll_tests::fake_backend::{Conduct, FakeBackend};
use atoll_tests::require;
use atoll_tests::requirement::Requirement::AnyKvm;

use crate::rig::{Rig, from_environment};

/// Disks whose backends come and go at the same time.
const DISKS: usize = 20;

#[test]
fn a_thousand_backends_that_come_and_go_leave_nothing_behind() {
    require!(AnyKvm);
    let rounds = from_environment("ATOLL_ROUNDS", 1000).div_ceil(DISKS);
    let backends: Vec<_> = (0..DISKS).map(|_| FakeBackend::new()).collect();
    for backend in &backends {
        // With running rings, in the handshake, and at once.
        for round in 0..rounds {
            backend.next(match round % 4 {
                1 => Conduct::Instead(round % 7, atoll_tests::fake_backend::Wrong::Close),
                _ => Conduct::Once(Box::new(|_| {})),
            });
        }
    }
    let sockets: Vec<_> = backends.iter().map(FakeBackend::socket).collect();
    let mut rig = Rig::start(&sockets, "");
    // A quarter of the way everything that is allocated once has been.
    let wait_for_ends = |ends: usize| {
        for backend in &backends {
            backend.wait_until("backends to come and go", |counts| counts.ends >= ends);
        }
    };
    wait_for_ends(rounds / 4);
    let early = rig.footprint();
    wait_for_ends(rounds);
    for backend in &backends {
        backend.wait_until("the one that stays", |counts| counts.connections > rounds);
    }
    rig.check_witness();
    let late = rig.footprint();
    assert_eq!(late.threads, early.threads);
    // Some devices may have been without a connection when the others were counted.
    assert!(late.files <= early.files + 3 * DISKS, "descriptors: {early:?}, {late:?}");
    assert!(late.memory_kib <= early.memory_kib + 512, "memory: {early:?}, {late:?}");
    rig.stop();
}
