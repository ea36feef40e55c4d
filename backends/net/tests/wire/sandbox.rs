//! What a network card's process can't do any more once it serves.

use crate::rig::{Rig, USUAL};

#[test]
fn every_thread_in_service_is_confined_and_has_no_say_in_the_network() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    rig.post(8, 1536);
    rig.check_alive();
    let threads = rig.process.confinement().unwrap();
    assert!(threads.len() >= 3, "{threads:?}");
    for thread in threads {
        assert_eq!((thread.seccomp, thread.no_new_privileges, thread.capabilities), (2, true, 0));
    }
}
