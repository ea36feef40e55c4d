//! The VMM takes no part in the data path.

use atoll_tests::guest::Guest;
use atoll_tests::image::{Image, MIB};
use atoll_tests::procfs;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{Root, StockKvm};

const REQUESTS: u64 = 4096;

#[test]
fn no_vmm_thread_wakes_and_no_vcpu_exits_to_the_vmm_for_disk_requests() {
    require!(StockKvm, Root);
    let disk = Image::patterned(16 * MIB);
    let mut guest = Guest::builder().cpus(2).disk(&disk).boot();
    let pid = guest.pid();
    // The first requests may meet pages that are not there yet.
    let read = |count: u64| {
        format!("dd if=/dev/vda of=/dev/null bs=4k count={count} iflag=direct 2> /dev/null")
    };
    guest.check(&read(64));
    let interrupts = guest.virtio_interrupts();

    let threads = threads_but_vcpus(pid);
    assert!(!threads.is_empty());
    let exits = exits_to_the_vmm(pid);
    guest.check(&read(REQUESTS));
    assert_eq!(threads_but_vcpus(pid), threads, "a thread of the VMM woke up");
    let exits = exits_to_the_vmm(pid) - exits;
    assert!(exits < REQUESTS / 50, "{exits} exits to the VMM for {REQUESTS} requests");

    // The requests were there, each with its interrupt.
    let fired: u64 = guest
        .virtio_interrupts()
        .iter()
        .filter(|(name, _)| name.contains("req"))
        .map(|(name, fired)| fired - interrupts.get(name).copied().unwrap_or_default())
        .sum();
    assert!(fired >= REQUESTS / 2, "{fired} interrupts for {REQUESTS} requests");
    guest.power_off();
}

fn threads_but_vcpus(pid: u32) -> Vec<(u32, procfs::Thread)> {
    let threads = procfs::threads(pid).into_iter();
    threads.filter(|(_, thread)| !thread.name.starts_with("vcpu")).collect()
}

/// Accesses to ports and device memory that the kernel did not answer itself.
fn exits_to_the_vmm(pid: u32) -> u64 {
    ["mmio_exits", "io_exits"]
        .iter()
        .map(|name| procfs::kvm_counter(pid, name).expect("KVM's counters in debugfs"))
        .sum()
}
