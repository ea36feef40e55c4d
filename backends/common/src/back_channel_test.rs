use std::io::Read;
use std::os::fd::AsFd;

use nix::sys::socket::{ControlMessage, sendmsg};

use super::*;

const SET_BACKEND_REQ_FD: u32 = 21;

fn send_with(socket: &UnixStream, message: &[u8], fds: &[i32]) {
    let iov = [io::IoSlice::new(message)];
    let rights = [ControlMessage::ScmRights(fds)];
    let attached = if fds.is_empty() { &rights[..0] } else { &rights };
    sendmsg::<()>(socket.as_raw_fd(), &iov, attached, MsgFlags::empty(), None).unwrap();
}

/// A channel that a front-end opens with these descriptors, and what it answers.
fn open(fds: &[i32], flags: u32) -> (ConfigChange, Vec<u8>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    send_with(&theirs, &message(SET_BACKEND_REQ_FD, VERSION | flags, &[]), fds);
    let header = Header::peek(&ours).unwrap().unwrap();
    assert!(header.opens_back_channel());
    assert_eq!(header.name(), "SET_BACKEND_REQ_FD");
    let config_change = ConfigChange::default();
    config_change.open(&ours, header, true).unwrap();
    drop(ours);
    let mut reply = Vec::new();
    theirs.read_to_end(&mut reply).unwrap();
    (config_change, reply)
}

fn reply_of(value: u64) -> Vec<u8> {
    message(SET_BACKEND_REQ_FD, VERSION | REPLY, &value.to_ne_bytes())
}

#[test]
fn a_change_is_announced_on_the_channel_that_was_opened() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (config_change, reply) = open(&[ours.as_raw_fd()], NEED_REPLY);
    drop(ours);
    assert_eq!(reply, reply_of(0));
    config_change.announce();
    let mut said = [0; HEADER];
    theirs.read_exact(&mut said).unwrap();
    assert_eq!(said, [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    config_change.close();
    config_change.announce();
    assert_eq!(theirs.read(&mut said).unwrap(), 0);
}

#[test]
fn replies_are_sent_to_who_asks_for_them() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert!(open(&[ours.as_raw_fd()], 0).1.is_empty());
}

#[test]
fn what_is_no_stream_socket_is_refused() {
    let file = tempfile::tempfile().unwrap();
    let (one, two) = UnixStream::pair().unwrap();
    assert_eq!(open(&[], NEED_REPLY).1, reply_of(1));
    assert_eq!(open(&[file.as_raw_fd()], NEED_REPLY).1, reply_of(1));
    assert_eq!(open(&[one.as_raw_fd(), two.as_raw_fd()], NEED_REPLY).1, reply_of(1));
}

#[test]
fn a_front_end_that_does_not_read_blocks_nobody() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let config_change = ConfigChange::default();
    config_change.set(Some(ours.as_fd().try_clone_to_owned().unwrap().into()));
    (0..100_000).for_each(|_| config_change.announce());
}

#[test]
fn half_a_header_and_other_requests_are_left_alone() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    send_with(&theirs, &[21, 0, 0], &[]);
    assert!(Header::peek(&ours).unwrap().is_none());
    let (ours, theirs) = UnixStream::pair().unwrap();
    send_with(&theirs, &message(9999, VERSION, &[]), &[]);
    let header = Header::peek(&ours).unwrap().unwrap();
    assert!(!header.opens_back_channel());
    assert_eq!(header.name(), "request 9999");
}
