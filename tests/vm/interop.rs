//! Our backends under QEMU, and other people's backends under our VMM.

use std::process::Command;

use atoll_tests::backend::Backend;
use atoll_tests::guest::Guest;
use atoll_tests::image::{Image, MIB};
use atoll_tests::network::Tap;
use atoll_tests::program;
use atoll_tests::qemu;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{Artifact, Program, Root, StockKvm};
use atoll_tests::scratch::Scratch;

#[test]
fn qemu_boots_from_atoll_blk_and_talks_through_atoll_net() {
    require!(Program("qemu-system-x86_64"), Artifact("root.ext4"), Root);
    let (root, tap) = (Image::debian(), Tap::new());
    let (mut blk, mut net) = (Backend::blk(&root, &[]), Backend::net(&tap));
    for round in 0..2 {
        // The same backends serve one QEMU after the other.
        let mut guest =
            qemu::builder().cmdline("root=/dev/vda rw").disk(blk.socket()).net(net.socket()).boot();
        assert_eq!(guest.check("findmnt --noheadings --output SOURCE /"), "/dev/vda");
        guest.check(&format!("echo {round} >> /root/rounds"));
        let device = guest.check("ls /sys/class/net | grep -v '^lo$'");
        guest.check(&tap.guest_setup(&device));
        guest.check(&format!("ping -c 3 {}", tap.host()));
        guest.power_off();
    }
    assert_eq!(blk.stop().code, 0);
    assert_eq!(net.stop().code, 0);
    root.check_ext4();
    assert_eq!(root.read_file("/root/rounds"), b"0\n1\n");
}

#[test]
fn atoll_boots_from_qemu_storage_daemon() {
    require!(StockKvm, Program("qemu-storage-daemon"), Artifact("root.ext4"));
    let root = Image::debian();
    let daemon = Backend::start(|socket| {
        let mut command = Command::new(program::find("qemu-storage-daemon").expect("just found"));
        let file = format!("driver=file,node-name=root,filename={}", root.path().display());
        let socket = socket.display();
        command.args(["--blockdev", &file, "--export"]).arg(format!(
            "type=vhost-user-blk,id=export,node-name=root,writable=on,\
             addr.type=unix,addr.path={socket}"
        ));
        command
    });
    let mut guest = Guest::builder()
        .memory("512M")
        .cmdline("root=/dev/vda rw")
        .device("blk", daemon.socket(), "")
        .boot();
    assert_eq!(guest.check("findmnt --noheadings --output SOURCE /"), "/dev/vda");
    guest.check("echo kept > /root/kept");
    guest.power_off();
    drop(daemon);
    root.check_ext4();
    assert_eq!(root.read_file("/root/kept"), b"kept\n");
}

#[test]
fn atoll_shares_a_folder_by_virtiofsd() {
    require!(StockKvm, Root, Program("virtiofsd"));
    let shared = Scratch::new();
    shared.write("from-host", "hello guest\n");
    let daemon = Backend::start(|socket| {
        let mut command = Command::new(program::find("virtiofsd").expect("just found"));
        command.arg("--socket-path").arg(socket).arg("--shared-dir").arg(shared.path());
        command.args(["--tag", "shared", "--sandbox", "chroot"]);
        command
    });
    let mut guest = Guest::builder().device("fs", daemon.socket(), "").boot();
    guest.check("modprobe virtiofs && mkdir -p /shared && mount -t virtiofs shared /shared");
    assert_eq!(guest.check("cat /shared/from-host"), "hello guest");
    guest.check("echo hello host > /shared/from-guest && sync && umount /shared");
    assert_eq!(std::fs::read(shared.join("from-guest")).expect("read it here"), b"hello host\n");
    guest.power_off();
}

#[test]
fn atoll_takes_random_numbers_from_vhost_device_rng() {
    require!(StockKvm, Program("vhost-device-rng"));
    let daemon = Backend::start(|socket| {
        let mut command = Command::new(program::find("vhost-device-rng").expect("just found"));
        // It appends the number of the device itself.
        let prefix =
            socket.to_str().and_then(|path| path.strip_suffix('0')).expect("a 0 at the end");
        command.args(["--socket-path", prefix]);
        command
    });
    let mut guest = Guest::builder().device("rng", daemon.socket(), "").boot();
    assert_eq!(guest.check("cat /sys/class/misc/hw_random/rng_current"), "virtio_rng.0");
    assert_eq!(guest.check("head -c 1024 /dev/hwrng | wc -c"), "1024");
    guest.power_off();
}

#[test]
fn atoll_uses_backends_that_somebody_else_has_started_and_they_outlive_it() {
    require!(StockKvm, Root);
    let (disk, tap) = (Image::patterned(4 * MIB), Tap::new());
    let (mut blk, mut net) = (Backend::blk(&disk, &["--num-queues=2"]), Backend::net(&tap));
    for _ in 0..2 {
        let mut guest = Guest::builder()
            .cpus(2)
            .device("blk", blk.socket(), ",queues=2")
            .device("net", net.socket(), "")
            .boot();
        assert_eq!(guest.check("md5sum < /dev/vda"), format!("{}  -", disk.md5()));
        assert_eq!(guest.check("ls /sys/block/vda/mq | wc -l"), "2");
        guest.check(&tap.guest_setup("eth0"));
        guest.check(&format!("ping -c 3 {}", tap.host()));
        guest.power_off();
    }
    assert_eq!(blk.stop().code, 0);
    assert_eq!(net.stop().code, 0);
    assert!(!blk.socket().exists() && !net.socket().exists(), "a socket file is left behind");
}
