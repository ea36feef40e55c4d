//! What memory the host has, as it says itself in /proc and /sys.

use std::fs;

/// The host's memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostMemory {
    /// Memory and swap.
    pub(super) total: u64,
    /// What can be had now without swapping.
    pub(super) available: u64,
}

/// The host's memory, or no limit where /proc does not say.
pub(super) fn memory() -> HostMemory {
    match fs::read_to_string("/proc/meminfo") {
        Ok(text) => parse(&text),
        Err(_unreadable) => HostMemory { total: u64::MAX, available: u64::MAX },
    }
}

fn parse(meminfo: &str) -> HostMemory {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let bytes = |kib: u64| kib.saturating_mul(1024);
    let swap = kib("SwapTotal").unwrap_or(0);
    HostMemory {
        total: kib("MemTotal").map_or(u64::MAX, |total| bytes(total.saturating_add(swap))),
        available: kib("MemAvailable").map_or(u64::MAX, bytes),
    }
}

/// The directory in which the kernel tells of, and takes, its huge pages of one size.
pub(super) fn hugepage_pool(page: u64) -> String {
    format!("/sys/kernel/mm/hugepages/hugepages-{}kB", page / 1024)
}

/// How many huge pages of this size are free and promised to nobody; `None` if there is no such size.
pub(super) fn free_hugepages(page: u64) -> Option<u64> {
    let pool = hugepage_pool(page);
    let read = |name| fs::read_to_string(format!("{pool}/{name}")).ok()?.trim().parse::<u64>().ok();
    // Surplus pages come and go as the pool overcommits; the kernel may make that many more.
    let free = read("free_hugepages")?.saturating_sub(read("resv_hugepages").unwrap_or(0));
    let may_grow = read("nr_overcommit_hugepages")
        .unwrap_or(0)
        .saturating_sub(read("surplus_hugepages").unwrap_or(0));
    Some(free.saturating_add(may_grow))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_bytes_and_swap_counts_as_memory() {
        let text = "MemTotal:       1000 kB\nMemAvailable:    300 kB\nSwapTotal:        24 kB\n";
        assert_eq!(parse(text), HostMemory { total: 1024 * 1024, available: 300 * 1024 });
    }

    #[test]
    fn a_host_that_says_nothing_sets_no_limit() {
        assert_eq!(parse(""), HostMemory { total: u64::MAX, available: u64::MAX });
    }
}
