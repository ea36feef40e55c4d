//! Guests whose devices are systemd's units, under a real systemd.

mod init;

use std::fs;
use std::time::Duration;

use atoll_tests::guest::Guest;
use atoll_tests::image::{Image, MIB};
use atoll_tests::network::Tap;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{Root, StockKvm};
use atoll_tests::scratch::Scratch;
use atoll_tests::{requirement, wait_for};

use init::Machine;

const GUEST: &str = "atoll@web.service";
const DISK: &str = "atoll-blk@disk.service";
const CONSOLE: &str = "atoll-console@shell.service";
const CARD: &str = "atoll-net@uplink.service";

/// Where the guest's console waits for its reader.
const SHELL: &str = "/run/atoll/console/shell/attach.sock";

/// How often the disk's process is killed, unless `ATOLL_KILLS` says.
const KILLS: u32 = 5;

/// Writes a mebibyte and reads it back, around all caches, again and again.
const WORK: &str = "(while [ ! -e /tmp/stop ]; do \
    dd if=/dev/urandom of=/tmp/a bs=64k count=16 2>/dev/null; \
    dd if=/tmp/a of=/dev/vda bs=16k conv=fsync 2>/dev/null || echo failed; \
    echo 3 > /proc/sys/vm/drop_caches; \
    cmp -n 1048576 /tmp/a /dev/vda || echo differs; \
    echo round; done > /tmp/log 2>&1; echo end >> /tmp/log) &";

#[test]
fn a_guest_goes_on_while_systemd_restarts_its_killed_devices() {
    require!(StockKvm, Root);
    if let Some(reason) = init::lacking() {
        return requirement::skip(&reason);
    }
    let (machine, process) = Machine::boot(&configuration(), Image::blank(8 * MIB).path());
    // Systemd listens for the devices; none of them runs before the guest asks for it.
    let owner = machine.check("id -u atoll").parse().expect("a user's number");
    let tap = Tap::of_user(owner);
    fs::write(machine.path("/etc/atoll/net/uplink.conf"), format!("TAP={}\n", tap.name()))
        .expect("configure the network card");
    machine.check(
        "systemctl start atoll-blk@disk.socket atoll-console@shell.socket atoll-net@uplink.socket",
    );
    assert_eq!(machine.property(DISK, "ActiveState"), "inactive");
    machine.check(&format!("systemctl start --no-block {GUEST}"));
    wait_for("the guest's start", || {
        let state = machine.property(GUEST, "ActiveState");
        // Each has what it needs, and none is started twice.
        let restarts = [DISK, CONSOLE, CARD].map(|unit| machine.property(unit, "NRestarts"));
        let fine = state != "failed" && restarts.iter().all(|count| count == "0");
        assert!(fine, "{}", machine.journal());
        (state == "active").then_some(())
    });
    let mut guest = Guest::attach(
        process,
        &machine.path(SHELL),
        machine.path("/run/atoll/web/serial"),
        Scratch::new(),
    );
    guest.wait_to_boot();
    for unit in [GUEST, DISK, CONSOLE, CARD] {
        // Each has said that it is ready: none is `activating`.
        assert_eq!(machine.property(unit, "ActiveState"), "active", "{unit}");
    }

    guest.check(WORK);
    for _ in 0..kills() {
        let before = rounds(&mut guest);
        wait_for("the guest's work", || (rounds(&mut guest) > before).then_some(()));
        kill(&machine, DISK);
    }
    guest.check(&tap.guest_setup("eth0"));
    for _ in 0..2 {
        guest.check(&format!("ping -c 3 {}", tap.host()));
        kill(&machine, CARD);
    }
    guest.check(&format!("ping -c 3 {}", tap.host()));
    let before = rounds(&mut guest);
    wait_for("the guest's work", || (rounds(&mut guest) > before).then_some(()));
    guest.check("touch /tmp/stop");
    wait_for("the end of the guest's work", || {
        (guest.check("tail -n 1 /tmp/log") == "end").then_some(())
    });
    assert_eq!(guest.check("grep -v -e round -e end /tmp/log || :"), "", "{}", machine.journal());
    assert_eq!(guest.check("dmesg | grep -i 'i/o error' || :"), "");
    let restarts: u32 = machine.property(DISK, "NRestarts").parse().expect("a number");
    assert_eq!(restarts, kills());

    let sum = guest.check("head -c 1048576 /dev/vda | md5sum");
    guest.shell_console().type_text("poweroff -f\n");
    wait_for("the guest's unit to end", || {
        (machine.property(GUEST, "ActiveState") == "inactive").then_some(())
    });
    assert_eq!(machine.property(GUEST, "Result"), "success");
    // The disk waits for the next machine, and ends in good order when it is told to.
    assert_eq!(machine.property(DISK, "ActiveState"), "active");
    machine.check(&format!("systemctl stop {DISK}"));
    assert_eq!(machine.property(DISK, "Result"), "success");
    let image = Scratch::new();
    let bytes = fs::read(machine.disk()).expect("read the disk's image");
    let written = image.write("written", bytes.get(..1 << 20).expect("it is longer"));
    assert_eq!(format!("{}  -", atoll_tests::image::md5(&written)), sum);
}

/// Kills the process of `unit`, and waits until there is another.
#[track_caller]
fn kill(machine: &Machine, unit: &str) {
    let pid = machine.property(unit, "MainPID");
    machine.check(&format!("kill -9 {pid}"));
    wait_for("the unit's next process", || {
        let next = machine.property(unit, "MainPID");
        (next != "0" && next != pid).then_some(())
    });
}

fn kills() -> u32 {
    std::env::var("ATOLL_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(KILLS)
}

/// How often the guest's work has come round.
fn rounds(guest: &mut Guest) -> u32 {
    std::thread::sleep(Duration::from_millis(50));
    guest.check("grep -c round /tmp/log || :").parse().expect("a number")
}

/// A machine whose disk, network card and console are units of their own.
fn configuration() -> Vec<(&'static str, String)> {
    let machine = r#"kernel = "/guest/vmlinux"
initrd = "/guest/initramfs.cpio.gz"
cmdline = "console=ttyS0 quiet"
memory = "256M"
serial = "file=/run/atoll/web/serial"

[[device]]
type = "console"
socket = "/run/atoll/shell.console.sock"
id = "shell"

[[device]]
type = "net"
socket = "/run/atoll/uplink.net.sock"
id = "uplink"

[[device]]
type = "blk"
socket = "/run/atoll/disk.blk.sock"
id = "disk"
"#;
    vec![
        ("web.toml", machine.to_owned()),
        ("net/uplink.conf", String::new()),
        ("blk/disk.conf", "BLK_FILE=/var/lib/atoll/disk.img\n".to_owned()),
    ]
}
