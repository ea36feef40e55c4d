//! A stock kernel boots, in either of its formats, and finds nothing wrong with the machine.

use atoll_tests::console::Console;
use atoll_tests::guest::Guest;
use atoll_tests::image::Image;
use atoll_tests::requirement::Requirement::{Artifact, StockKvm};
use atoll_tests::scratch::Scratch;
use atoll_tests::{PATIENCE, require, wait_for};

#[test]
fn a_stock_kernel_boots_from_its_elf_file_and_has_no_complaint() {
    require!(StockKvm, Artifact("vmlinux"));
    let mut guest = Guest::builder().boot();

    // No warning and no error about the platform. What else there may be is the host's: KVM's
    // unstable clock, say.
    let platform = "ACPI|PCI|pci|Firmware|BIOS|IRQ|irq|APIC|i8042|rtc|ttyS|virtio|vd[a-z]";
    let complaints = guest.run(&format!("dmesg -r | grep '^<[0-4]>' | grep -E '{platform}'"));
    assert_eq!(complaints.stdout, "");

    // ACPI gives PCI its ECAM, the guest its power button; the clock shows the host's time.
    assert!(guest.check("dmesg").contains("MMCONFIG"));
    assert_eq!(guest.run("ls -d /sys/bus/acpi/devices/PNP0C0C*").status, 0);
    let time: i64 = guest.check("date +%s").parse().expect("seconds");
    let here = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs();
    assert!(i64::try_from(here).unwrap().abs_diff(time) < 60, "{time} in the guest, {here} here");

    guest.power_off();
}

#[test]
fn a_stock_kernel_boots_from_its_bzimage() {
    require!(StockKvm, Artifact("bzImage"));
    let mut guest = Guest::builder().kernel("bzImage").boot();
    assert!(guest.check("uname -v").contains("Debian"));
    guest.power_off();
}

#[test]
fn a_debian_system_boots_from_its_disk_with_its_agent_and_heeds_the_power_button() {
    require!(StockKvm, Artifact("root.ext4"));
    let (root, scratch) = (Image::debian(), Scratch::new());
    let agent = scratch.join("agent");
    let to = format!("file=/dev/null,port=org.qemu.guest_agent.0:socket={}", agent.display());
    let mut guest = Guest::debian(&root).console(&to).boot();
    assert_eq!(guest.check("findmnt --noheadings --output SOURCE /"), "/dev/vda");
    assert_eq!(guest.check("cat /etc/hostname"), "guest");
    guest.check("systemctl start systemd-logind");
    guest.check("echo kept > /root/kept");

    // The port's name had udev start QEMU's guest agent, as the package has it.
    let mut agent = wait_for("the agent's port", || Console::connect(&agent));
    for (command, answer) in
        [("guest-ping", "{\"return\": {}}"), ("guest-get-osinfo", "\"id\": \"debian\"")]
    {
        agent.type_text(&format!("{{\"execute\": \"{command}\"}}\n"));
        let found = |heard: &str| heard.contains(answer).then_some(());
        agent.wait_for(0, PATIENCE, found).expect(command);
    }

    guest.press_power_button();
    let finished = guest.vmm().wait();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    root.check_ext4();
    assert_eq!(root.read_file("/root/kept"), b"kept\n");
}
