//! What the kernel tells about a process: its threads, its children, its exits from guests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A thread of a process at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its name.
    pub name: String,
    /// How often it has left a CPU so far: a thread that sleeps all the time has left none.
    pub switches: u64,
}

/// The threads of `pid` by thread id.
///
/// # Panics
/// When there is no such process.
#[track_caller]
pub fn threads(pid: u32) -> BTreeMap<u32, Thread> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("list a process's threads");
    tasks
        .filter_map(|task| thread(&task.ok()?.path()))
        .collect()
}

fn thread(task: &Path) -> Option<(u32, Thread)> {
    // A thread may end while we look.
    let status = fs::read_to_string(task.join("status")).ok()?;
    let field = |key: &str| {
        status
            .lines()
            .find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim()))
    };
    let count = |key: &str| field(key)?.parse::<u64>().ok();
    let switches = count("voluntary_ctxt_switches")? + count("nonvoluntary_ctxt_switches")?;
    let tid = task.file_name()?.to_str()?.parse().ok()?;
    Some((
        tid,
        Thread {
            name: field("Name")?.to_owned(),
            switches,
        },
    ))
}

/// The children of `pid` by process id, each with its command's name.
pub fn children(pid: u32) -> BTreeMap<u32, String> {
    let everybody = fs::read_dir("/proc").expect("list processes");
    everybody
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let child = entry.file_name().to_str()?.parse().ok()?;
            // pid (comm) state ppid …, and comm may hold anything: virtue is after the last ')'.
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (head, tail) = stat.rsplit_once(')')?;
            let parent: u32 = tail.split_whitespace().nth(1)?.parse().ok()?;
            let (_, name) = head.split_once('(')?;
            (parent == pid).then(|| (child, name.to_owned()))
        })
        .collect()
}

/// How many file descriptors `pid` has open.
#[track_caller]
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("list a process's descriptors")
        .count()
}

/// KVM's own counter `name` (`mmio_exits`, `io_exits`, …) for the virtual machine of process `pid`.
/// `None` where debugfs is not to be had.
pub fn kvm_counter(pid: u32, name: &str) -> Option<u64> {
    let kvm = Path::new("/sys/kernel/debug/kvm");
    if !kvm.exists() {
        let mount = ["-t", "debugfs", "debugfs", "/sys/kernel/debug"];
        let mut command = std::process::Command::new("mount");
        // Not root, or no debugfs in this kernel: the caller is told by the missing counter.
        let _not_to_be_had = command.args(mount).output();
    }
    let machine = fs::read_dir(kvm)
        .ok()?
        .filter_map(Result::ok)
        .find(|entry| {
            // Each machine has a directory "PID-FD".
            entry
                .file_name()
                .to_string_lossy()
                .split_once('-')
                .is_some_and(|(p, _)| p == pid.to_string())
        })?;
    fs::read_to_string(machine.path().join(name))
        .ok()?
        .trim()
        .parse()
        .ok()
}
