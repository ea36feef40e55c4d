//! Backends that are not what they should be.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use atoll_tests::backend::Backend;
use atoll_tests::image::Image;
use atoll_tests::peer::{GET_FEATURES, Peer, answer, hear};
use atoll_tests::program;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{AnyKvm, Program};

use crate::refusal::{FAILURE, Run, assert_command_refuses};

/// An `atoll run` with the backend on `socket` as its disk `data` fails, naming both and `words`.
#[track_caller]
fn assert_peer_refused(socket: &Path, words: &[&str]) {
    let name = socket.to_str().expect("scratch paths are text");
    let words: Vec<_> = ["data", name].iter().chain(words).copied().collect();
    let device = format!("blk,socket={name},id=data");
    Run::new().with("--device").with(&device).is_refused(FAILURE, &words);
}

#[test]
fn a_backend_that_speaks_garbage_is_named() {
    require!(AnyKvm);
    let peer = Peer::play(|mut stream| {
        let _heard = hear(&mut stream);
        let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _until_it_leaves = hear(&mut stream);
    });
    assert_peer_refused(peer.socket(), &["does not speak vhost-user"]);
}

#[test]
fn a_backend_that_closes_in_the_handshake_is_named() {
    require!(AnyKvm);
    let at_once = Peer::play(drop);
    assert_peer_refused(at_once.socket(), &["closed"]);
    let after_one = Peer::play(|mut stream| {
        let _heard = hear(&mut stream);
    });
    assert_peer_refused(after_one.socket(), &["closed"]);
}

#[test]
fn a_backend_that_never_answers_is_named() {
    require!(AnyKvm);
    let peer = Peer::play(|mut stream| while hear(&mut stream).is_some() {});
    assert_peer_refused(peer.socket(), &["did not answer"]);
}

#[test]
fn a_backend_without_a_needed_feature_is_named_with_the_feature() {
    require!(AnyKvm);
    let peer = Peer::play(|mut stream| {
        while let Some(message) = hear(&mut stream) {
            if message.request == GET_FEATURES {
                answer(&mut stream, GET_FEATURES, &0u64.to_le_bytes());
            }
        }
    });
    assert_peer_refused(peer.socket(), &["VIRTIO_F_VERSION_1"]);
}

#[test]
fn a_backend_of_another_type_is_named_with_what_shows_it() {
    require!(AnyKvm);
    let image = Image::blank(4096);
    let disk = Backend::blk(&image, &[]);
    // Its features tell: no console has a block size.
    let name = disk.socket().to_str().expect("scratch paths are text");
    let device = format!("console,socket={name},id=data");
    let words = ["data", name, "console", "VIRTIO_BLK_F_", "as a blk device does"];
    Run::new().with("--device").with(&device).is_refused(FAILURE, &words);
}

#[test]
fn a_low_soft_limit_of_open_files_leaves_room_for_as_many_queues_as_there_can_be() {
    require!(AnyKvm, Program("prlimit"));
    let image = Image::blank(4096);
    let disk = Backend::blk(&image, &["--num-queues=255"]);
    let broken = Peer::play(drop);
    let device = |socket: &Path, keys: &str| format!("blk,socket={},{keys}", socket.display());
    let run = Run::new()
        .with("--device")
        .with(&device(disk.socket(), "id=many,queues=255"))
        .with("--device")
        .with(&device(broken.socket(), "id=next"));
    let mut command = Command::new("prlimit");
    command.arg("--nofile=256:").arg(program::ours("atoll")).args(run.words());
    // They are connected to one after the other.
    assert_command_refuses("atoll", command, FAILURE, &["device next", "closed"]);
}
