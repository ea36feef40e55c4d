//! vCPUs and memory: as many and as much as was asked for.

use std::fs;

use atoll_tests::guest::Guest;
use atoll_tests::image::MIB;
use atoll_tests::procfs;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{Root, StockKvm};

#[test]
fn four_vcpus_all_run() {
    require!(StockKvm);
    let mut guest = Guest::builder().cpus(4).boot();
    assert_eq!(guest.check("nproc"), "4");
    for cpu in 0..4 {
        guest.check(&format!("taskset -c {cpu} true"));
    }
    // One package of four cores.
    assert_eq!(guest.check("grep -c '^cpu cores.*: 4$' /proc/cpuinfo"), "4");
    assert_eq!(guest.check("sort -u /sys/devices/system/cpu/cpu*/topology/core_id | wc -l"), "4");
    let names: Vec<_> = procfs::threads(guest.pid()).into_values().map(|t| t.name).collect();
    for cpu in 0..4 {
        assert!(names.contains(&format!("vcpu{cpu}")), "{names:?}");
    }
    guest.power_off();
}

#[test]
fn memory_that_reaches_into_the_hole_goes_on_above_4_gib() {
    require!(StockKvm);
    assert_has_memory("3584M", 3584 * MIB);
}

#[test]
fn a_guest_may_have_6_gib() {
    require!(StockKvm);
    assert_has_memory("6G", 6144 * MIB);
}

fn assert_has_memory(option: &str, size: u64) {
    let mut guest = Guest::builder().memory(option).boot();
    let map = guest.check("grep 'System RAM' /proc/iomem");
    let ranges: Vec<(u64, u64)> = map
        .lines()
        .map(|line| {
            let range = line.split_whitespace().next().expect("a range");
            let (first, last) = range.split_once('-').expect("first-last");
            let address = |text| u64::from_str_radix(text, 16).expect("a hexadecimal address");
            (address(first), address(last) + 1)
        })
        .collect();
    let total: u64 = ranges.iter().map(|(first, end)| end - first).sum();
    // All but what a PC keeps back below 1 MiB.
    assert!((size - MIB..=size).contains(&total), "{total:#x} bytes of memory in\n{map}");
    let high: u64 = ranges.iter().filter(|range| range.0 >= 1 << 32).map(|(f, e)| e - f).sum();
    assert_eq!(high, size - 3072 * MIB, "the memory above 4 GiB in\n{map}");
    // The kernel takes from the top: this is written above the hole and read back.
    guest.check("dd if=/dev/urandom of=/tmp/a bs=1M count=16 2>&1");
    guest.check("cp /tmp/a /tmp/b && cmp /tmp/a /tmp/b");
    guest.power_off();
}

#[test]
fn memory_can_be_of_huge_pages_all_taken_before_the_start() {
    require!(StockKvm, Root);
    let _pool = HugePages::reserve(128);
    let mut guest = Guest::builder().memory("256M,hugepages=2M,prefault=on").boot();
    assert_eq!(free_huge_pages(), 0, "prefaulted memory has every page");
    guest.power_off();
    assert_eq!(free_huge_pages(), 128);
}

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// The host's pool of 2 MiB pages, put back as it was when dropped.
struct HugePages(String);

impl HugePages {
    fn reserve(count: u32) -> Self {
        let before = fs::read_to_string(POOL).expect("read the pool's size");
        let pool = Self(before);
        fs::write(POOL, count.to_string()).expect("set the pool's size");
        let got = fs::read_to_string(POOL).expect("read the pool's size");
        assert_eq!(got.trim(), count.to_string(), "the host has no room for huge pages");
        pool
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _too_late_to_tell = fs::write(POOL, &self.0);
    }
}

fn free_huge_pages() -> u32 {
    let free = fs::read_to_string(POOL.replace("nr_", "free_")).expect("read the pool's state");
    free.trim().parse().expect("a number of pages")
}
