//! Other people's backends, and what each guarantees.

use std::process::Command;

use atoll_tests::backend::Backend;
use atoll_tests::guest::Guest;
use atoll_tests::image::{Image, MIB};
use atoll_tests::load::{self, Fio};
use atoll_tests::program;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{Artifact, Program, Root, StockKvm};
use atoll_tests::scratch::Scratch;
use atoll_tests::wait_for;

use super::{check_no_complaint, kill_again_and_again, kills, with_tools};

/// `qemu-storage-daemon` 7.2 keeps no record of what is in flight (it offers no INFLIGHT_SHMFD). What is
/// guaranteed is what the rings prove: with one request at a time, always, that the next process does
/// it. With more, those that were answered out of order may make the device ask for a reset.
#[test]
fn fio_finds_every_byte_right_while_qemu_storage_daemon_is_killed() {
    require!(StockKvm, Root, Program("qemu-storage-daemon"), Artifact("root.ext4"));
    let image = Image::blank(16 * MIB);
    let mut daemon = Backend::start(|socket| {
        let mut command = Command::new(program::find("qemu-storage-daemon").expect("just found"));
        let file = format!("driver=file,node-name=disk,filename={}", image.path().display());
        command.args(["--blockdev", &file, "--export"]).arg(format!(
            "type=vhost-user-blk,id=export,node-name=disk,writable=on,\
             addr.type=unix,addr.path={}",
            socket.display()
        ));
        command
    });
    let mut guest = with_tools().device("blk", daemon.socket(), ",id=data").boot();
    load::prepare(&mut guest);
    let fio = Fio::start(&mut guest, "/dev/vdb", 1, 1);
    kill_again_and_again(&mut daemon, kills(6));
    assert!(fio.finish(&mut guest) > 0);
    check_no_complaint(&mut guest);
    guest.power_off();
}

/// `virtiofsd` keeps no record, and what it knows of open files dies with it: a mount does not
/// survive. What is guaranteed is that nothing hangs and nothing acknowledged is lost: programs in the
/// folder get errors, the guest unmounts and mounts again, and finds what it had synchronised.
#[test]
fn a_folder_whose_virtiofsd_is_killed_under_load_gives_errors_and_can_be_mounted_again() {
    require!(StockKvm, Root, Program("virtiofsd"));
    let shared = Scratch::new();
    shared.write("from-host", "hello guest\n");
    let mut daemon = Backend::start(|socket| {
        let mut command = Command::new(program::find("virtiofsd").expect("just found"));
        command.arg("--socket-path").arg(socket).arg("--shared-dir").arg(shared.path());
        command.args(["--tag", "shared", "--sandbox", "chroot"]);
        command
    });
    let mut guest = Guest::builder().device("fs", daemon.socket(), ",id=folder").boot();
    let mount = "mount -t virtiofs shared /shared && cat /shared/from-host";
    guest.check("modprobe virtiofs && mkdir -p /shared");
    assert_eq!(guest.check(mount), "hello guest");

    let sum = guest.check(
        "dd if=/dev/urandom of=/shared/kept bs=64k count=16 conv=fsync 2> /dev/null && \
         md5sum < /shared/kept",
    );
    guest.check(
        "(while dd if=/dev/zero of=/shared/work bs=16k count=64 conv=fsync 2> /tmp/last; do \
         echo round >> /tmp/rounds; done; touch /tmp/ended) &",
    );
    wait_for("work in the folder", || {
        (guest.check("cat /tmp/rounds 2> /dev/null | wc -l") != "0").then_some(())
    });
    daemon.kill();
    daemon.restart();
    wait_for("the end of the work", || guest.check("ls /tmp").contains("ended").then_some(()));
    guest.check("umount /shared");
    assert_eq!(guest.check(mount), "hello guest");
    assert_eq!(guest.check("md5sum < /shared/kept"), sum);
    guest.check("umount /shared");

    daemon.kill();
    daemon.restart();
    assert_eq!(guest.check(mount), "hello guest", "when nothing was in flight");
    guest.power_off();
}
