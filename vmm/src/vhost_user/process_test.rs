//! Processes that live and end.

use std::process::Command;

use super::*;

fn identity(pid: u32) -> PeerIdentity {
    PeerIdentity { pid: Some(pid), ..PeerIdentity::default() }
}

#[test]
fn a_process_lives_until_it_has_ended() {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let process = Process::of(&identity(child.id())).unwrap();
    assert!(process.lives());
    child.kill().unwrap();
    while process.lives() {
        std::thread::yield_now();
    }
    // A zombie until here.
    child.wait().unwrap();
    assert!(!process.lives());
}

#[test]
fn nobody_waits_for_the_end_of_init_or_of_who_is_unknown() {
    assert!(Process::of(&identity(INIT)).is_none());
    assert!(Process::of(&PeerIdentity::default()).is_none());
}

#[test]
fn a_socket_pair_of_our_own_tells_nothing_of_the_other_end() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert_eq!(peer_pid(&ours), None);
    assert!(command(std::process::id()).is_some());
}
