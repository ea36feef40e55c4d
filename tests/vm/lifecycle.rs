//! How a machine's life goes on and ends, and that nothing of it is left behind.

use std::collections::BTreeSet;
use std::fs;

use atoll_tests::guest::Guest;
use atoll_tests::image::{Image, MIB};
use atoll_tests::procfs;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::StockKvm;

#[test]
fn a_reboot_restarts_the_guest_in_the_same_process_with_the_same_backends() {
    require!(StockKvm);
    let disk = Image::blank(8 * MIB);
    let mut guest = Guest::builder().cpus(2).disk(&disk).boot();
    let backends = guest.backends();
    assert_eq!(backends.len(), 2, "{backends:?}");
    guest.check("echo before > /dev/vda && sync");

    guest.reboot();
    assert_eq!(guest.backends(), backends);
    assert_eq!(guest.check("head -n 1 /dev/vda"), "before");
    assert_eq!(guest.check("nproc"), "2");

    // What a boot takes, a reboot gives back.
    let (threads, files) = (thread_names(&guest), procfs::open_files(guest.pid()));
    guest.reboot();
    assert_eq!(thread_names(&guest), threads);
    assert_eq!(procfs::open_files(guest.pid()), files);
    guest.power_off();
}

#[test]
fn a_power_off_leaves_nothing_behind() {
    require!(StockKvm);
    let interfaces = interfaces();
    let disk = Image::blank(8 * MIB);
    let mut guest = Guest::builder().disk(&disk).boot();
    guest.power_off();
    assert_nothing_left(&mut guest);
    assert_eq!(self::interfaces(), interfaces);
}

#[test]
fn a_second_sigterm_stops_a_guest_that_ignores_the_first() {
    require!(StockKvm);
    let disk = Image::blank(8 * MIB);
    let mut guest = Guest::builder().disk(&disk).boot();
    guest.press_power_button();
    // Nobody in the initramfs looks at the button.
    guest.check("true");
    guest.press_power_button();
    let finished = guest.vmm().wait();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_nothing_left(&mut guest);
}

#[test]
fn a_guest_that_ignores_sigterm_is_stopped_after_the_grace_period() {
    require!(StockKvm);
    let mut guest = Guest::builder().option("--grace", "1").boot();
    guest.press_power_button();
    let finished = guest.vmm().wait();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_nothing_left(&mut guest);
}

/// No process of the VMM's group, and no file but the serial port's log.
fn assert_nothing_left(guest: &mut Guest) {
    assert_eq!(guest.vmm().group_members(), Vec::<u32>::new());
    let files: Vec<_> = fs::read_dir(guest.scratch())
        .expect("list the guest's directory")
        .map(|entry| entry.expect("list the guest's directory").file_name())
        .collect();
    assert_eq!(files, ["serial"]);
}

fn thread_names(guest: &Guest) -> Vec<String> {
    let mut names: Vec<_> = procfs::threads(guest.pid()).into_values().map(|t| t.name).collect();
    names.sort();
    names
}

fn interfaces() -> BTreeSet<String> {
    fs::read_dir("/sys/class/net")
        .expect("list network interfaces")
        .map(|entry| entry.expect("list").file_name().to_string_lossy().into_owned())
        .collect()
}
