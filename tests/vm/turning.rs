//! What is turned on devices while a guest runs, as the guest sees it.

use std::path::Path;

use atoll_tests::guest::Guest;
use atoll_tests::image::{Image, MIB};
use atoll_tests::network::Tap;
use atoll_tests::process::run;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{Root, StockKvm};
use atoll_tests::scratch::Scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What `atoll ctl` says to `words`.
#[track_caller]
fn ctl(socket: &Path, words: &[&str]) -> String {
    let socket = socket.to_str().expect("scratch paths are text");
    let finished = run("atoll", ["ctl", "--socket", socket].iter().chain(words));
    assert_eq!(finished.code, 0, "{words:?}: {}", finished.stderr);
    finished.stdout
}

/// Waits in the guest until `command` says `word`.
#[track_caller]
fn see(guest: &mut Guest, command: &str, word: &str) {
    let look =
        format!("for i in $(seq 100); do [ \"$({command})\" = {word} ] && break; sleep 0.1; done");
    assert_eq!(guest.check(&format!("{look}; {command}")), word);
}

#[test]
fn a_guest_sees_its_disk_grow_and_its_cable_pulled_and_limits_outlive_a_death() {
    require!(StockKvm, Root);
    let (image, tap, scratch) = (Image::patterned(8 * MIB), Tap::new(), Scratch::new());
    let socket = scratch.join("control");
    let control = socket.to_str().expect("scratch paths are text");
    let mut guest = Guest::builder().disk(&image).net(&tap).option("--control", control).boot();

    let size = "blockdev --getsize64 /dev/vda";
    assert_eq!(guest.check(size), "8388608");
    ctl(&socket, &["device", "resize", "disk0", "16M"]);
    see(&mut guest, size, "16777216");
    guest.check("dd if=/proc/version of=/dev/vda bs=1M seek=15 conv=fsync 2>&1");

    let carrier = "cat /sys/class/net/eth0/carrier";
    guest.check(&tap.guest_setup("eth0"));
    guest.check(&format!("ping -c 1 {}", tap.host()));
    ctl(&socket, &["device", "link", "net0", "down"]);
    see(&mut guest, carrier, "0");
    // A card whose process dies is not plugged in by that.
    for (pid, _) in guest.backends().into_iter().filter(|(_, name)| name != "atoll-console") {
        kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("kill");
    }
    ctl(&socket, &["device", "limit", "disk0", "--iops", "1K"]);
    guest.check(
        "echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/vda of=/dev/null bs=64k count=16 2>&1",
    );
    assert_ne!(guest.run(&format!("ping -c 1 -W 1 {}", tap.host())).status, 0);
    assert_eq!(guest.check(carrier), "0");
    ctl(&socket, &["device", "link", "net0", "up"]);
    see(&mut guest, carrier, "1");
    guest.check(&format!("ping -c 1 -w 10 {}", tap.host()));

    let metrics = ctl(&socket, &["metrics"]);
    let active = "atoll_device_state{device=\"disk0\",state=\"active\",type=\"blk\"} 1\n";
    assert!(metrics.contains(active), "{metrics}");
    assert!(metrics.contains("atoll_tx_dropped_total{device=\"net0\",reason=\"link-down\"} "));
    guest.power_off();
}
