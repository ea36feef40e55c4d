//! Disks: what a guest writes is what the image holds.

use atoll_tests::backend::Backend;
use atoll_tests::guest::Guest;
use atoll_tests::image::{Image, MIB};
use atoll_tests::requirement::Requirement::{Artifact, Program, StockKvm};
use atoll_tests::{artifacts, load, qemu, require};

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

#[test]
fn file_systems_are_sound_and_what_they_trim_shrinks_the_file() {
    require!(StockKvm, Artifact("root.ext4"));
    let (qcow2, raw) = (Image::qcow2(256 * MIB), Image::blank(512 * MIB));
    let tools = load::tools(&artifacts::get("root.ext4"));
    let disks = [
        tools,
        format!("path={},format=qcow2", qcow2.path().display()),
        format!("path={}", raw.path().display()),
    ];
    let builder = Guest::builder().memory("384M");
    let mut guest =
        disks.iter().fold(builder, |builder, disk| builder.option("--disk", disk)).boot();
    load::prepare(&mut guest);
    use_and_trim(&mut guest, EXT4, "/dev/vdb", &qcow2);
    use_and_trim(&mut guest, XFS, "/dev/vdc", &raw);
    guest.power_off();
}

#[test]
fn file_systems_are_sound_and_trimmed_under_qemu() {
    require!(Program("qemu-system-x86_64"), Artifact("root.ext4"));
    let (root, qcow2, raw) = (Image::debian(), Image::qcow2(256 * MIB), Image::blank(512 * MIB));
    let backends = [
        Backend::blk(&root, &["--read-only"]),
        Backend::blk(&qcow2, &["--format=qcow2"]),
        Backend::blk(&raw, &[]),
    ];
    let builder = backends.iter().fold(qemu::builder(), |qemu, disk| qemu.disk(disk.socket()));
    let mut guest = builder.boot();
    load::prepare(&mut guest);
    use_and_trim(&mut guest, EXT4, "/dev/vdb", &qcow2);
    use_and_trim(&mut guest, XFS, "/dev/vdc", &raw);
    guest.power_off();
    for mut backend in backends {
        assert_eq!(backend.stop().code, 0);
    }
}

/// A kind of file system, by the programs of Debian's that make it and look for faults.
#[derive(Clone, Copy)]
struct FileSystem {
    name: &'static str,
    make: &'static str,
    check: &'static str,
}

const EXT4: FileSystem =
    FileSystem { name: "ext4", make: "/sbin/mke2fs -q -t ext4", check: "/sbin/e2fsck -f -n" };

const XFS: FileSystem =
    FileSystem { name: "xfs", make: "/sbin/mkfs.xfs -q", check: "/sbin/xfs_repair -n" };

/// Makes a file system on `disk` with the tools on the first, fills some of it, takes it away again.
#[track_caller]
fn use_and_trim(guest: &mut Guest, kind: FileSystem, disk: &str, image: &Image) {
    let FileSystem { name, make, check } = kind;
    // The initramfs lacks the modules of most file systems.
    guest.check(&format!("busybox chroot /mnt /sbin/modprobe {name} && mkdir -p /tmp/disk"));
    guest.check(&format!("busybox chroot /mnt {make} {disk}"));
    guest.check(&format!("busybox chroot /mnt mount -t {name} {disk} /tmp/disk"));
    guest.check("dd if=/dev/urandom of=/tmp/file bs=1M count=24 2>&1");
    let sum = guest.check("md5sum < /tmp/file");
    guest.check("for n in 1 2 3; do cp /tmp/file /mnt/tmp/disk/$n; done && sync");
    let full = image.space();
    assert!(full > 72 * MIB, "{full}");
    guest.check("rm /mnt/tmp/disk/1 /mnt/tmp/disk/2 && sync");
    guest.check("busybox chroot /mnt /sbin/fstrim /tmp/disk");
    let trimmed = image.space();
    assert!(trimmed < full - 44 * MIB, "{full} bytes became {trimmed}");
    guest.check("echo 3 > /proc/sys/vm/drop_caches");
    assert_eq!(guest.check("md5sum < /mnt/tmp/disk/3"), sum);
    guest.check(&format!(
        "busybox chroot /mnt umount /tmp/disk && busybox chroot /mnt {check} {disk}"
    ));
}
