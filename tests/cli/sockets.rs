//! Sockets that cannot be connected to, or listened on.

use std::fs;
use std::os::unix::net::UnixListener;

use atoll_tests::backend::Backend;
use atoll_tests::image::Image;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::AnyKvm;
use atoll_tests::scratch::Scratch;

use crate::refusal::{FAILURE, Run, USAGE, assert_refuses};

fn attach(run: Run, socket: &str) -> Run {
    run.with("--device").with(&format!("blk,socket={socket},id=data"))
}

#[test]
fn a_backend_that_is_not_there_is_waited_for_until_the_timeout() {
    require!(AnyKvm);
    let run = Run::new();
    let socket = run.scratch.join("missing").display().to_string();
    let run = attach(run, &socket).with("--connect-timeout").with("1");
    run.is_refused(FAILURE, &["waiting", &socket, "data", "--connect-timeout"]);
}

#[test]
fn a_backend_that_comes_late_is_found() {
    require!(AnyKvm);
    let run = Run::new();
    let path = run.scratch.join("late");
    let socket = path.display().to_string();
    // Nobody in the guest heeds the power button.
    let run = attach(run, &socket).with("--grace").with("1");
    let mut vmm = run.start();
    vmm.wait_to_say("waiting");
    let image = Image::blank(4096);
    let file = format!("--blk-file={}", image.path().display());
    let late = format!("--socket-path={socket}");
    let mut backend = atoll_tests::process::Process::ours("atoll-blk", [&late, &file]);
    atoll_tests::wait_for("the VMM to connect", || {
        atoll_tests::procfs::threads(vmm.pid())
            .values()
            .any(|thread| thread.name == "vcpu0")
            .then_some(())
    });
    assert_eq!(vmm.stop().code, 0);
    assert_eq!(backend.stop().code, 0);
    assert!(!path.exists(), "the backend left its socket behind");
}

#[test]
fn sigterm_ends_the_wait_for_a_backend() {
    require!(AnyKvm);
    let run = Run::new();
    let socket = run.scratch.join("missing").display().to_string();
    let run = attach(run, &socket);
    let mut vmm = run.start();
    vmm.wait_to_say("waiting");
    assert_eq!(vmm.stop().code, 0);
}

#[test]
fn a_path_that_is_no_socket_is_refused_and_kept() {
    let scratch = Scratch::new();
    let path = scratch.write("precious", "data");
    let name = path.display().to_string();
    let image = Image::blank(4096);
    let file = format!("--blk-file={}", image.path().display());
    let socket = format!("--socket-path={name}");
    assert_refuses("atoll-blk", [&socket, &file], FAILURE, &[&name, "not a socket"]);
    if AnyKvm.lacking().is_none() {
        attach(Run::new(), &name).is_refused(FAILURE, &[&name, "not a socket", "data"]);
    }
    assert_eq!(fs::read(&path).expect("read it back"), b"data");
}

#[test]
fn a_path_too_long_for_a_socket_is_refused() {
    let scratch = Scratch::new();
    let name = format!("{}/{}", scratch.path().display(), "x".repeat(108));
    let image = Image::blank(4096);
    let file = format!("--blk-file={}", image.path().display());
    let socket = format!("--socket-path={name}");
    assert_refuses("atoll-blk", [&socket, &file], USAGE, &[&name, "107"]);
    if AnyKvm.lacking().is_none() {
        attach(Run::new(), &name).is_refused(FAILURE, &[&name, "107"]);
    }
}

#[test]
fn a_socket_that_is_served_stays_with_its_server() {
    let image = Image::blank(4096);
    let other = Image::blank(4096);
    let mut holder = Backend::blk(&image, &[]);
    let pid = holder.process().pid().to_string();
    let name = holder.socket().display().to_string();
    let socket = format!("--socket-path={name}");
    let file = format!("--blk-file={}", other.path().display());
    assert_refuses("atoll-blk", [&socket, &file], FAILURE, &[&name, "already served", &pid]);
    assert!(holder.listens());
    assert_eq!(holder.stop().code, 0);
    assert!(!holder.socket().exists());
}

#[test]
fn a_socket_that_nobody_serves_any_more_is_replaced() {
    let scratch = Scratch::new();
    let path = scratch.join("stale");
    drop(UnixListener::bind(&path).expect("make a socket"));
    let image = Image::blank(4096);
    let args = [
        format!("--socket-path={}", path.display()),
        format!("--blk-file={}", image.path().display()),
    ];
    let mut backend = atoll_tests::process::Process::ours("atoll-blk", args);
    atoll_tests::wait_for("the backend to listen", || {
        std::os::unix::net::UnixStream::connect(&path).ok().map(drop)
    });
    assert_eq!(backend.stop().code, 0);
    assert!(!path.exists());
}
