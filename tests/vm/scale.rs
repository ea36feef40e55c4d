//! Many devices in one guest, each with its interrupts.

use atoll_tests::console::Console;
use atoll_tests::guest::Guest;
use atoll_tests::image::{Image, MIB};
use atoll_tests::network::Tap;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{Root, StockKvm};
use atoll_tests::scratch::Scratch;
use atoll_tests::wait_for;

#[test]
fn three_disks_two_networks_and_two_consoles_work_and_every_queue_interrupts() {
    require!(StockKvm, Root);
    let disks = [(); 3].map(|()| Image::patterned(4 * MIB));
    let taps = [Tap::new(), Tap::new()];
    let scratch = Scratch::new();
    let socket = scratch.join("hvc1");

    let mut builder = Guest::builder().cpus(2).console(&format!("socket={}", socket.display()));
    builder = disks.iter().fold(builder, |builder, disk| builder.disk(disk));
    builder = taps.iter().fold(builder, |builder, tap| builder.net(tap));
    let mut guest = builder.boot();
    assert_eq!(guest.backends().len(), 7, "{:?}", guest.backends());

    for (disk, name) in disks.iter().zip(["vda", "vdb", "vdc"]) {
        assert_eq!(guest.check(&format!("md5sum < /dev/{name}")), format!("{}  -", disk.md5()));
        // From each vCPU, so that each queue is used.
        for cpu in 0..2 {
            guest.check(&format!(
                "taskset -c {cpu} dd if=/dev/{name} of=/dev/null bs=4k count=16 iflag=direct 2>&1"
            ));
        }
    }
    for (tap, name) in taps.iter().zip(["eth0", "eth1"]) {
        guest.check(&tap.guest_setup(name));
        guest.check(&format!("ping -c 3 {}", tap.host()));
    }
    let mut console = wait_for("the second console", || Console::connect(&socket));
    guest.check("head -n 1 /dev/hvc1 > /tmp/line & sleep 1");
    console.type_text("typed\n");
    guest.check("wait");
    assert_eq!(guest.check("cat /tmp/line"), "typed");

    let interrupts = guest.virtio_interrupts();
    let mut queues = interrupts.iter().filter(|(name, _)| !name.ends_with("-config"));
    // Two a disk, two a network, one a console: its driver watches the transmit queue itself.
    assert!(queues.clone().count() >= 12, "{interrupts:#?}");
    assert!(queues.all(|(_, fired)| *fired > 0), "{interrupts:#?}");
    guest.power_off();
}

#[test]
fn sixteen_devices_work_in_one_guest() {
    require!(StockKvm);
    let disks: Vec<_> = (0..15).map(|_| Image::patterned(MIB)).collect();
    let sum = disks[0].md5();
    let mut guest = disks.iter().fold(Guest::builder(), |builder, disk| builder.disk(disk)).boot();
    assert_eq!(guest.check("ls /sys/bus/virtio/devices | wc -l"), "16");
    assert_eq!(guest.check("cat /dev/vd? | wc -c"), (15 * MIB).to_string());
    assert_eq!(
        guest.check("for d in /dev/vd?; do md5sum < $d; done | sort -u"),
        format!("{sum}  -")
    );
    guest.power_off();
}

#[test]
fn a_guest_may_have_64_vcpus() {
    require!(StockKvm);
    let mut guest = Guest::builder().cpus(64).memory("512M").boot();
    assert_eq!(guest.check("nproc"), "64");
    guest.power_off();
}
