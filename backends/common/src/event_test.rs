use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{InitFlags, Inotify};
use nix::unistd::pipe;

use super::{accept_signal, is_counter, take};

/// Long enough for whoever waits that long to be noticed.
const LONG: Duration = Duration::from_secs(20);

/// All kinds of files whose reader waits for something to read: the front-end has taken O_NONBLOCK off.
fn blocking() -> Vec<File> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
    let counter = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_SEMAPHORE).unwrap();
    let (socket, peer) = UnixStream::pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    let watched = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
    // Their other ends stay open.
    std::mem::forget((peer, writer));
    let watched: OwnedFd = watched.into();
    vec![
        OwnedFd::from(event).into(),
        OwnedFd::from(counter).into(),
        OwnedFd::from(socket).into(),
        reader.into(),
        watched.into(),
    ]
}

#[test]
fn an_event_that_a_front_end_makes_block_keeps_nobody() {
    let (done, all_done) = mpsc::channel();
    std::thread::spawn(move || {
        for event in blocking() {
            // Some of them are none, and say so.
            let _refused = (is_counter(&event), take(&event));
        }
        done.send(()).unwrap();
    });
    all_done.recv_timeout(LONG).expect("it waits for what never comes");
}

#[test]
fn counters_are_told_from_what_passes_bytes_on_and_keep_their_count() {
    let event = EventFd::from_value(3).unwrap();
    let file = File::from(OwnedFd::from(event));
    assert!(is_counter(&file).unwrap());
    let mut count = [0; 8];
    std::io::Read::read_exact(&mut &file, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 3);

    let (socket, mut peer) = UnixStream::pair().unwrap();
    let socket = File::from(OwnedFd::from(socket));
    assert!(!is_counter(&socket).unwrap());
    peer.write_all(&1u64.to_ne_bytes()).unwrap();
    assert!(!is_counter(&socket).unwrap());
    take(&socket).unwrap();
    drop(peer);
    assert!(is_counter(&socket).is_err() && take(&socket).is_err());
}

#[test]
fn only_what_counts_is_signalled() {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
    assert!(accept_signal(OwnedFd::from(event).into()).is_ok());
    let (socket, _peer) = UnixStream::pair().unwrap();
    let (_reader, writer) = pipe().unwrap();
    let null = File::options().write(true).open("/dev/null").unwrap();
    let file = tempfile::tempfile().unwrap();
    for other in [OwnedFd::from(socket).into(), writer.into(), null, file] {
        assert!(accept_signal(other).is_err());
    }
}
