//! Backends that `atoll run` started: restarted when they die, and gone when it is.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use atoll_tests::image::Image;
use atoll_tests::process::Process;
use atoll_tests::procfs;
use atoll_tests::requirement::Requirement::AnyKvm;
use atoll_tests::{require, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::control::Controlled;
use crate::refusal::Run;

/// The `atoll-blk` of a VMM, when it has exactly one.
fn backend(vmm: u32) -> Option<u32> {
    let children = procfs::children(vmm);
    let mut backends = children.iter().filter(|(_, name)| *name == "atoll-blk");
    let pid = backends.next().map(|(pid, _)| *pid);
    pid.filter(|_| backends.next().is_none())
}

fn end(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("pids are positive");
    kill(Pid::from_raw(pid), signal).expect("signal a backend");
}

fn gone(pid: u32) -> bool {
    // A zombie has ended, whoever has yet to reap it.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    state.map_or(true, |stat| stat.contains(") Z "))
}

/// The processes that have `image` on their command line.
fn serving(image: &Path) -> Vec<u32> {
    let image = image.to_str().expect("scratch paths are text");
    let everybody = std::fs::read_dir("/proc").expect("list processes");
    let pids = everybody.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let serves = |pid: &u32| {
        // Empty for a zombie, and an error for who has just gone.
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(image)
    };
    pids.filter(serves).collect()
}

#[test]
fn a_backend_that_dies_is_replaced_and_its_end_is_told() {
    require!(AnyKvm);
    let image = Image::blank(4096);
    let mut machine = Controlled::start(Some(&image));
    let first = wait_for("a backend", || backend(machine.vmm.pid()));
    end(first, Signal::SIGKILL);
    let second =
        wait_for("another backend", || backend(machine.vmm.pid()).filter(|pid| *pid != first));
    let lost = wait_for("the event", || {
        let mut events = machine.events().into_iter();
        events.find(|event| event["device"] == "disk0" && event["kind"] == "lost")
    });
    assert_eq!(lost["peer"]["exit"], "killed by SIGKILL", "{lost}");
    wait_for("the device to be back", || {
        let devices = machine.json(&["device", "list"]);
        (devices[0]["peer"]["pid"] == second).then_some(())
    });
    assert_eq!(machine.vmm.stop().code, 0);
    assert!(gone(second));
}

#[test]
fn a_backend_that_hangs_is_replaced_when_it_is_asked_for() {
    require!(AnyKvm);
    let image = Image::blank(4096);
    let machine = Controlled::start(Some(&image));
    let first = wait_for("a backend", || backend(machine.vmm.pid()));
    end(first, Signal::SIGSTOP);
    machine.ctl(&["device", "reattach", "disk0"]);
    wait_for("another backend", || backend(machine.vmm.pid()).filter(|pid| *pid != first));
    assert!(gone(first));
}

#[test]
fn a_backend_that_is_killed_again_and_again_is_restarted_every_time() {
    require!(AnyKvm);
    let image = Image::blank(4096);
    let mut machine = Controlled::start(Some(&image));
    let mut killed = BTreeSet::new();
    for _ in 0..6 {
        let pid = wait_for("a backend that was not killed yet", || {
            backend(machine.vmm.pid()).filter(|pid| !killed.contains(pid))
        });
        end(pid, Signal::SIGKILL);
        killed.insert(pid);
    }
    let connected = |device: &Value| {
        device["peer"]["pid"]
            .as_u64()
            .is_some_and(|pid| u32::try_from(pid).is_ok_and(|pid| !killed.contains(&pid)))
    };
    wait_for("the device to be back", || {
        let devices = machine.json(&["device", "list"]);
        connected(&devices[0]).then_some(())
    });
    assert!(machine.vmm.is_running());
    assert_eq!(machine.vmm.stop().code, 0);
}

#[test]
fn backends_die_with_a_vmm_that_is_killed_at_any_moment() {
    require!(AnyKvm);
    let image = Image::blank(4096);
    let disk = format!("path={},readonly=on", image.path().display());
    for delay in 0..20 {
        let run = (0..4).fold(Run::new(), |run, _| run.with("--disk").with(&disk));
        let mut vmm: Process = run.start();
        std::thread::sleep(Duration::from_millis(delay * 4));
        vmm.signal(Signal::SIGKILL);
        vmm.wait();
        wait_for("every backend to end with its VMM", || {
            serving(image.path()).is_empty().then_some(())
        });
    }
}
