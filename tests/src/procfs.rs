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
    tasks.filter_map(|task| thread(&task.ok()?.path())).collect()
}

fn thread(task: &Path) -> Option<(u32, Thread)> {
    // A thread may end while we look.
    let status = fs::read_to_string(task.join("status")).ok()?;
    let field = |key: &str| {
        status.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim()))
    };
    let count = |key: &str| field(key)?.parse::<u64>().ok();
    let switches = count("voluntary_ctxt_switches")? + count("nonvoluntary_ctxt_switches")?;
    let tid = task.file_name()?.to_str()?.parse().ok()?;
    Some((tid, Thread { name: field("Name")?.to_owned(), switches }))
}

/// The children of `pid` by process id, each with its command's name.
pub fn children(pid: u32) -> BTreeMap<u32, String> {
    let processes = processes().filter(|process| process.parent == pid);
    processes.map(|process| (process.pid, process.name)).collect()
}

/// The process ids of the members of process group `group`.
pub fn group(group: u32) -> Vec<u32> {
    processes().filter(|process| process.group == group).map(|process| process.pid).collect()
}

struct Process {
    pid: u32,
    name: String,
    parent: u32,
    group: u32,
}

fn processes() -> impl Iterator<Item = Process> {
    let everybody = fs::read_dir("/proc").expect("list processes");
    everybody.filter_map(|entry| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        // A process may end while we look.
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // `pid (name) state parent group …`, and the name may hold anything.
        let (head, tail) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let mut numbers = tail.split_whitespace().skip(1).map(str::parse);
        let (parent, group) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Process { pid, name: name.to_owned(), parent, group })
    })
}

/// How many file descriptors `pid` has open.
#[track_caller]
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("list a process's descriptors").count()
}

/// How much memory of its own `pid` has in use, in KiB: heap, stacks, changed data, and nothing of a
/// guest's memory.
#[track_caller]
pub fn own_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read a status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("a number of KiB")
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
    let machine = fs::read_dir(kvm).ok()?.filter_map(Result::ok).find(|entry| {
        // Each machine has a directory "PID-FD".
        entry
            .file_name()
            .to_string_lossy()
            .split_once('-')
            .is_some_and(|(p, _)| p == pid.to_string())
    })?;
    fs::read_to_string(machine.path().join(name)).ok()?.trim().parse().ok()
}
