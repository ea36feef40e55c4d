//! Disks: what a guest writes is what the image holds.

use atoll_tests::guest::Guest;
use atoll_tests::image::{Image, MIB};
use atoll_tests::require;
use atoll_tests::requirement::Requirement::StockKvm;

#[test]
fn a_large_file_is_the_same_in_the_guest_after_its_cache_is_dropped_and_on_the_host() {
    require!(StockKvm);
    let source = Image::patterned(256 * MIB);
    let target = Image::ext4(384 * MIB);
    let mut guest = Guest::builder().disk_with(&source, ",readonly=on").disk(&target).boot();

    guest.check("mkdir -p /disk && mount -t ext4 /dev/vdb /disk");
    guest.check("dd if=/dev/vda of=/disk/file bs=1M 2>&1 && sync");
    guest.check("echo 3 > /proc/sys/vm/drop_caches");
    let sum = source.md5();
    assert_eq!(guest.check("md5sum < /disk/file"), format!("{sum}  -"));

    guest.power_off();
    target.check_ext4();
    assert_eq!(target.md5_of_file("/file"), sum);
}

#[test]
fn a_disk_says_its_size_serial_number_and_whether_it_may_be_written() {
    require!(StockKvm);
    let (plain, locked) = (Image::blank(8 * MIB), Image::blank(4 * MIB));
    let mut guest = Guest::builder()
        .disk_with(&plain, ",serial=plain-disk")
        .disk_with(&locked, ",readonly=on")
        .boot();
    assert_eq!(guest.check("cat /sys/block/vda/size"), "16384");
    assert_eq!(guest.check("cat /sys/block/vda/serial"), "plain-disk");
    assert_eq!(guest.check("cat /sys/block/vda/ro /sys/block/vdb/ro"), "0\n1");
    assert_ne!(guest.run("dd if=/dev/zero of=/dev/vdb bs=4k count=1 oflag=direct").status, 0);
    guest.power_off();
}

#[test]
fn the_disk_driver_can_be_unbound_and_bound_again() {
    require!(StockKvm);
    let image = Image::patterned(4 * MIB);
    let sum = image.md5();
    let mut guest = Guest::builder().disk(&image).boot();
    let backends = guest.backends();
    // The virtio driver alone, then the PCI driver below it.
    for device in ["/sys/block/vda/device", "/sys/block/vda/device/.."] {
        guest.rebind(device);
        assert_eq!(guest.check("md5sum < /dev/vda"), format!("{sum}  -"));
    }
    assert_eq!(guest.backends(), backends, "a backend lives on through a reset");
    guest.power_off();
}
