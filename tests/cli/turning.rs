//! What is read and turned on devices while a machine runs: limits, sizes, cables, metrics. The guest
//! halts; what it sees of it is shown with a kernel.

use std::fs;

use atoll_tests::backend::Backend;
use atoll_tests::image::Image;
use atoll_tests::network::Tap;
use atoll_tests::procfs;
use atoll_tests::requirement::Requirement::{AnyKvm, Root};
use atoll_tests::{require, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::control::Controlled;

fn disk(image: &Image, more: &str) -> String {
    format!("path={}{more}", image.path().display())
}

/// The process that serves `device`, as the machine knows it.
fn pid(machine: &Controlled, device: &str) -> i32 {
    let devices = machine.json(&["device", "list"]);
    let devices = devices.as_array().cloned().unwrap_or_default();
    let device = devices.into_iter().find(|found| found["id"] == device).expect("the device");
    i32::try_from(device["peer"]["pid"].as_i64().expect("a pid")).expect("a pid")
}

fn send(signal: Signal, pid: i32) {
    kill(Pid::from_raw(pid), signal).expect("signal a backend");
}

fn limits(machine: &Controlled) -> Value {
    machine.json(&["device", "limit", "disk0"])
}

#[test]
fn limits_are_set_while_a_disk_runs_and_outlive_its_process() {
    require!(AnyKvm);
    let image = Image::blank(4096);
    let machine = Controlled::start_with(["--disk", &disk(&image, ",iops=100,iops-burst=7")]);
    let given = json!({"bps": 0, "bps_burst": 0, "iops": 100, "iops_burst": 7});
    assert_eq!(limits(&machine), given);
    let said = machine.ctl(&["device", "limit", "disk0", "--bps", "1M", "--iops", "off"]);
    assert_eq!(
        said,
        "bps           1048576\nbps-burst     -\niops          off\niops-burst    -\n"
    );
    let set = json!({"bps": 1 << 20, "bps_burst": 0, "iops": 0, "iops_burst": 0});
    assert_eq!(limits(&machine), set);
    let first = pid(&machine, "disk0");
    send(Signal::SIGKILL, first);
    wait_for("another process", || (pid(&machine, "disk0") != first).then_some(()));
    assert_eq!(limits(&machine), set);
    let command = fs::read(format!("/proc/{}/cmdline", pid(&machine, "disk0"))).expect("a process");
    assert!(String::from_utf8_lossy(&command).contains("--limit-bps=1048576"));
}

#[test]
fn a_disk_becomes_longer_and_never_shorter() {
    require!(AnyKvm);
    let image = Image::blank(4096);
    let machine = Controlled::start(Some(&image));
    let said = machine.ctl(&["device", "resize", "disk0", "1M"]);
    assert_eq!(said, "device disk0 has 1 MiB now (1048576 bytes)\n");
    assert_eq!(fs::metadata(image.path()).expect("an image").len(), 1 << 20);
    let file = fs::File::options().write(true).open(image.path()).expect("an image");
    file.set_len(1 << 21).expect("make it longer");
    assert_eq!(machine.json(&["device", "resize", "disk0"]), json!({ "size": 1 << 21 }));
    wait_for("the guest to be told", || {
        let events = machine.events();
        let told = events.iter().filter(|event| event["kind"] == "config-changed").count();
        (told >= 2).then_some(())
    });
    machine.refuses(&["device", "resize", "disk0", "4K"], &["disk0", "2097152", "shorter"]);
    machine.refuses(&["device", "resize", "disk0", "2097153"], &["multiple of 512"]);
    assert_eq!(fs::metadata(image.path()).expect("an image").len(), 1 << 21);
}

#[test]
fn a_pulled_cable_stays_pulled_when_another_process_takes_over() {
    require!(AnyKvm, Root);
    let tap = Tap::new();
    let machine = Controlled::start_with(["--net", &format!("tap={},rx-bps=1M", tap.name())]);
    let said = machine.ctl(&["device", "link", "net0", "down"]);
    assert_eq!(said, "device net0: its cable is pulled\n");
    machine.ctl(&["device", "limit", "net0", "--tx-pps=500", "--tx-pps-burst=50"]);
    let first = pid(&machine, "net0");
    send(Signal::SIGKILL, first);
    wait_for("another process", || (pid(&machine, "net0") != first).then_some(()));
    let limits = machine.json(&["device", "limit", "net0"]);
    assert_eq!((&limits["rx_bps"], &limits["tx_pps"]), (&json!(1 << 20), &json!(500)));
    let second = pid(&machine, "net0");
    let command = || {
        let command = fs::read(format!("/proc/{}/cmdline", pid(&machine, "net0")));
        String::from_utf8_lossy(&command.expect("a process")).into_owned()
    };
    assert!(command().contains("--link=down") && command().contains("--limit-tx-pps-burst=50"));
    assert_eq!(machine.json(&["device", "link", "net0", "up"]), json!({ "up": true }));
    send(Signal::SIGKILL, second);
    wait_for("a third", || (pid(&machine, "net0") != second).then_some(()));
    assert!(!command().contains("--link"), "{}", command());
    machine.refuses(&["device", "resize", "net0", "1G"], &["net0", "has no size"]);
}

#[test]
fn what_a_device_has_not_can_not_be_turned() {
    require!(AnyKvm);
    let image = Image::blank(4096);
    let machine = Controlled::start(Some(&image));
    machine.refuses(&["device", "link", "disk0", "down"], &["disk0", "has no link"]);
    machine.refuses(&["device", "limit", "disk0", "--rx-bps=1"], &["rx_bps", "iops_burst"]);
    machine.refuses(&["device", "limit", "disk0", "--bps-burst=1"], &["there is no bps"]);
    machine.refuses(&["device", "limit", "disk9"], &["disk9", "disk0"]);
    assert!(limits(&machine).as_object().expect("limits").values().all(|limit| *limit == 0));
    let wrong = b"PATCH /api/v1/devices/disk0/limits HTTP/1.1\r\nConnection: close\r\n\
                  Content-Length: 9\r\n\r\n{\"evil\":1";
    assert!(machine.raw(wrong).starts_with("HTTP/1.1 400 "));
}

#[test]
fn metrics_of_all_devices_are_one_text_and_a_hung_process_does_not_hold_it_up() {
    require!(AnyKvm);
    let image = Image::blank(4096);
    let disks = [disk(&image, ",readonly=on"), disk(&image, ",readonly=on")];
    let machine = Controlled::start_with(disks.iter().flat_map(|disk| ["--disk", disk]));
    let active = "atoll_device_state{device=\"disk1\",state=\"negotiated\",type=\"blk\"} 1\n";
    let requests = |disk| format!("\natoll_requests_total{{device=\"{disk}\",queue=\"0\"}} 0\n");
    let told = |disk, told| format!("\natoll_device_metrics{{device=\"{disk}\"}} {told}\n");
    let text = machine.ctl(&["metrics"]);
    for part in
        [active, &requests("disk0"), &requests("disk1"), &told("disk1", 1), "atoll_vcpus 1\n"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert_eq!(text.matches("# TYPE atoll_requests_total counter\n").count(), 1);

    let hung = pid(&machine, "disk1");
    send(Signal::SIGSTOP, hung);
    let text = machine.ctl(&["metrics"]);
    assert!(text.contains(&requests("disk0")) && text.contains(&told("disk0", 1)), "{text}");
    assert!(!text.contains(&requests("disk1")) && text.contains(&told("disk1", 0)), "{text}");
    machine.refuses(&["device", "limit", "disk1"], &["disk1", "atoll-blk", "does not answer"]);
    send(Signal::SIGCONT, hung);
    assert!(machine.ctl(&["metrics"]).contains(&requests("disk1")));
    let plain = b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n";
    assert!(machine.raw(plain).contains("Content-Type: text/plain; version=0.0.4"));
}

#[test]
fn a_device_of_somebody_else_is_asked_at_the_socket_that_is_named() {
    require!(AnyKvm);
    let image = Image::blank(4096);
    let socket = image.path().with_extension("control");
    let control = format!("--control-socket={}", socket.display());
    let named = Backend::blk(&image, &[&control, "--read-only"]);
    let unnamed = Backend::blk(&image, &["--read-only"]);
    let named = format!("blk,socket={},control={}", named.socket().display(), socket.display());
    let unnamed = format!("blk,socket={}", unnamed.socket().display());
    let machine = Controlled::start_with(["--device", &named, "--device", &unnamed]);
    machine.ctl(&["device", "limit", "device0", "--iops=5"]);
    assert_eq!(machine.json(&["device", "limit", "device0"])["iops"], 5);
    let path = socket.to_str().expect("scratch paths are text");
    machine.refuses(&["device", "limit", "device1"], &["device1", "no control socket", "control="]);
    let children = procfs::children(machine.vmm.pid());
    assert!(children.is_empty(), "{children:?}");
    fs::remove_file(&socket).expect("a socket");
    machine.refuses(&["device", "limit", "device0"], &["device0", path, "No such file"]);
}
