//! KVM's own counters of one virtual machine, from debugfs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The counters that say what a guest left its vCPUs for, or cost its host.
const NAMES: &[&str] = &[
    "exits",
    "io_exits",
    "mmio_exits",
    "halt_exits",
    "irq_exits",
    "irq_window_exits",
    "nmi_window_exits",
    "signal_exits",
    "request_irq_exits",
    "insn_emulation",
    "hypercalls",
    "pf_taken",
    "pf_fixed",
];

/// How often each thing has happened in the machine of process `pid`; empty when it has none, or
/// there is no debugfs.
pub(super) fn of(pid: u32) -> BTreeMap<&'static str, u64> {
    let machines = fs::read_dir("/sys/kernel/debug/kvm").into_iter().flatten().flatten();
    let prefix = format!("{pid}-");
    machines
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .flat_map(|entry| read(&entry.path()))
        .collect()
}

fn read(machine: &Path) -> Vec<(&'static str, u64)> {
    let value = |name: &str| fs::read_to_string(machine.join(name)).ok()?.trim().parse().ok();
    NAMES.iter().filter_map(|name| Some((*name, value(name)?))).collect()
}
