//! Disks of `atoll-blk`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use atoll_tests::backend::Backend;
use atoll_tests::guest::Guest;
use atoll_tests::image::{Image, MIB};
use atoll_tests::load::{self, Fio};
use atoll_tests::process::{run, tool};
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{Artifact, Program, Root, StockKvm};
use atoll_tests::scratch::Scratch;
use atoll_tests::{artifacts, program, qemu, wait_for};
use nix::sys::signal::Signal;

use super::{check_no_complaint, kill_again_and_again, kills, with_tools};

/// A whole disk that every lab has. Two device nodes of it can be served at the same time, which
/// the lock on an image file would not let.
const SCRATCH: &str = "/dev/scratch";

#[test]
fn fio_finds_every_byte_right_while_its_disk_s_process_dies_hangs_and_is_replaced() {
    require!(StockKvm, Root, Artifact("root.ext4"));
    let image = Image::blank(16 * MIB);
    let mut backend = Backend::blk(&image, &["--num-queues=4"]);
    let mut guest =
        with_tools().cpus(4).device("blk", backend.socket(), ",queues=4,id=data").boot();
    load::prepare(&mut guest);
    assert_eq!(guest.check("ls /sys/block/vdb/mq | wc -l"), "4");

    let fio = Fio::start(&mut guest, "/dev/vdb", 4, 32);
    kill_again_and_again(&mut backend, kills(10));
    for round in 0..3 {
        backend.process().signal(Signal::SIGSTOP);
        std::thread::sleep(Duration::from_millis(round * 1300));
        backend.process().signal(Signal::SIGCONT);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(fio.finish(&mut guest) > 0);
    check_no_complaint(&mut guest);
    let log = guest.vmm().stderr();
    assert!(log.contains("lost its back-end"), "nobody noticed a death: {log}");
    assert!(!log.contains("reset"), "a device was given up: {log}");
    guest.power_off();
}

#[test]
fn fio_finds_every_byte_right_while_its_disk_moves_from_one_process_to_another() {
    require!(StockKvm, Root, Artifact("root.ext4"));
    if !Path::new(SCRATCH).exists() {
        return atoll_tests::requirement::skip("needs the lab's own empty disk");
    }
    let nodes = Scratch::new();
    let (one, two) = (node(&nodes, "one"), node(&nodes, "two"));
    let control = nodes.join("control").display().to_string();
    let mut guest =
        with_tools().device("blk", one.socket(), ",id=data").option("--control", &control).boot();
    load::prepare(&mut guest);
    let fio = Fio::start(&mut guest, "/dev/vdb", 1, 32);
    for round in 0..6 {
        std::thread::sleep(Duration::from_millis(500));
        let to = if round % 2 == 0 { &two } else { &one };
        let socket = format!("socket={}", to.socket().display());
        let swap = ["ctl", "--socket", &control, "device", "swap", "data", &socket];
        let finished = run("atoll", swap);
        assert_eq!(finished.code, 0, "{}", finished.stderr);
    }
    assert!(fio.finish(&mut guest) > 0);
    check_no_complaint(&mut guest);
    guest.power_off();
}

/// An `atoll-blk` on a device node of its own for the same disk.
fn node(directory: &Scratch, name: &str) -> Backend {
    let path = directory.join(name);
    let to = path.to_str().expect("scratch paths are text");
    tool("cp", ["-aL", SCRATCH, to]);
    Backend::start(|socket| {
        let mut command = Command::new(program::ours("atoll-blk"));
        command.arg(format!("--socket-path={}", socket.display()));
        command.arg(format!("--blk-file={to}"));
        command
    })
}

#[test]
fn a_disk_may_come_late_be_away_for_a_reboot_and_be_removed_and_found_again_while_it_is_dead() {
    require!(StockKvm);
    let image = Image::patterned(4 * MIB);
    let sum = format!("{}  -", image.md5());
    let mut backend = Backend::blk(&image, &[]);
    backend.kill();
    let builder = Guest::builder().device("blk", backend.socket(), ",id=data");
    let mut guest = builder.launch_behind(|vmm| {
        vmm.wait_to_say("waiting");
        backend.restart();
    });
    guest.wait_to_boot();
    assert_eq!(guest.check("md5sum < /dev/vda"), sum, "after a late start");

    // Away during a whole boot: the guest's driver finds the disk, and its first read waits.
    backend.kill();
    guest.shell_console().type_text("reboot -f\n");
    std::thread::sleep(Duration::from_secs(5));
    backend.restart();
    guest.wait_to_boot();
    assert_eq!(guest.check("md5sum < /dev/vda"), sum, "after a reboot");

    // Away while its driver goes and comes back.
    let device = guest.check("cd -P /sys/block/vda/device/.. && pwd");
    backend.kill();
    guest.check(&format!("echo 1 > {device}/remove"));
    assert_ne!(guest.run("[ -e /sys/block/vda ]").status, 0);
    guest.check("(echo 1 > /sys/bus/pci/rescan; touch /tmp/found) > /dev/null 2>&1 &");
    std::thread::sleep(Duration::from_secs(1));
    backend.restart();
    wait_for("the disk to be found again", || {
        (guest.run("[ -e /tmp/found ] && [ -e /dev/vda ]").status == 0).then_some(())
    });
    assert_eq!(guest.check("md5sum < /dev/vda"), sum, "after removal and rescan");
    guest.power_off();
}

#[test]
fn fio_finds_every_byte_right_under_qemu_while_atoll_blk_is_killed() {
    require!(Program("qemu-system-x86_64"), StockKvm, Root, Artifact("root.ext4"));
    let image = Image::blank(16 * MIB);
    let mut backend = Backend::blk(&image, &[]);
    let root = artifacts::get("root.ext4");
    let mut guest = qemu::builder()
        .arg("-drive", format!("if=none,id=tools,format=raw,readonly=on,file={}", root.display()))
        .arg("-device", "virtio-blk-pci,drive=tools".to_owned())
        .reconnecting_disk(backend.socket())
        .boot();
    load::prepare(&mut guest);
    let fio = Fio::start(&mut guest, "/dev/vdb", 1, 32);
    for _ in 0..kills(10).div_ceil(4) {
        std::thread::sleep(Duration::from_millis(400));
        backend.kill();
        backend.restart();
        // QEMU looks for it once a second, and gives up for good when it is lost in between.
        std::thread::sleep(Duration::from_millis(2500));
    }
    assert!(fio.finish(&mut guest) > 0);
    check_no_complaint(&mut guest);
    guest.power_off();
}
