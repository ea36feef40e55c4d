//! Memory that a process has to itself, without the guest's.

use std::fs;

/// KiB of private memory of a process, in mappings other than memfds: every VMM measured keeps its
/// guest's memory in one.
pub(super) fn private(pid: u32) -> Option<u64> {
    Some(sum(&fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?))
}

fn sum(smaps: &str) -> u64 {
    let mut guests = false;
    let mut total = 0;
    for line in smaps.lines() {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["Private_Clean:" | "Private_Dirty:" | "Private_Hugetlb:", kib, "kB"] if !guests => {
                total += kib.parse().unwrap_or(0);
            }
            // `7f00-7f01 rw-s 00000000 00:01 1 /memfd:name (deleted)` begins a mapping.
            [range, _, _, _, _, name @ ..] if range.contains('-') => {
                guests = name.first().is_some_and(|name| name.starts_with("/memfd:"));
            }
            _ => {}
        }
    }
    total
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;
