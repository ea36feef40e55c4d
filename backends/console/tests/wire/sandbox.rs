//! What a console's process can't do any more once it serves.

use std::os::unix::fs::chown;

use crate::rig::Rig;

/// A user that nothing belongs to.
const NOBODY: u32 = 64_123;

#[test]
fn every_thread_in_service_is_confined() {
    for outlet in ["--pty=", "--unix=", "--file="] {
        let rig = Rig::start(|dir| vec![format!("{outlet}{}", dir.join("outlet").display())]);
        let threads = rig.process.confinement().unwrap();
        assert!(threads.len() >= 4, "{threads:?}");
        for thread in threads {
            let given_up = (thread.seccomp, thread.no_new_privileges, thread.capabilities);
            assert_eq!(given_up, (2, true, 0), "{outlet}");
        }
    }
}

#[test]
fn both_sockets_and_the_link_are_removed_as_another_user() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    for outlet in ["--pty=", "--unix="] {
        let mut rig = Rig::start(|dir| {
            chown(dir, Some(NOBODY), None).unwrap();
            let user = format!("--user={NOBODY}:{NOBODY}");
            vec![format!("{outlet}{}", dir.join("outlet").display()), user]
        });
        let threads = rig.process.confinement().unwrap();
        assert!(threads.iter().all(|thread| thread.user == (NOBODY, NOBODY)), "{threads:?}");
        rig.terminate();
        assert!(rig.path("outlet").symlink_metadata().is_err(), "{outlet}");
    }
}

#[test]
fn with_a_control_socket_they_are_removed_as_well() {
    let mut rig = Rig::start(|dir| {
        let at = |name: &str| dir.join(name).display().to_string();
        vec![format!("--unix={}", at("outlet")), format!("--control-socket={}", at("control"))]
    });
    rig.terminate();
    for name in ["outlet", "control"] {
        assert!(rig.path(name).symlink_metadata().is_err(), "{name}");
    }
}
