//! Boots the same guest under several VMMs in turn and tells times, exits and memory apart.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use atoll_tests::image::Image;
use atoll_tests::network::Tap;
use atoll_tests::{artifacts, procfs, program};

use super::median::median;
use super::{counters, memory};

/// Boots per VMM; the median counts.
const RUNS: usize = 3;

/// What the guest's init writes to the serial port as its first act.
const MARK: &[u8] = b"user space";

/// Every guest's memory.
const MEMORY: &str = "256M";

/// A VMM under measurement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Vmm {
    Atoll,
    Q35,
    Microvm,
}

const VMMS: [Vmm; 3] = [Vmm::Atoll, Vmm::Q35, Vmm::Microvm];

/// What each guest gets besides memory: the same for all.
struct Devices {
    disk: Image,
    tap: Tap,
}

/// One boot.
struct Boot {
    user_space: Duration,
    exit: Duration,
    counters: BTreeMap<&'static str, u64>,
}

/// Private KiB of each process that a VMM is made of.
type Memory = Vec<(String, u64)>;

/// Boots them all, in turn so that what the machine does meanwhile hits each alike, and prints the
/// table.
pub(crate) fn measure() -> Result<ExitCode> {
    let devices = Devices { disk: Image::patterned(64 << 20), tap: Tap::new() };
    let mut boots: [Vec<Boot>; 3] = Default::default();
    for run in 1..=RUNS {
        for (vmm, boots) in VMMS.into_iter().zip(&mut boots) {
            eprintln!("run {run} of {RUNS}: {}", vmm.name());
            boots.push(boot(vmm, &devices)?);
        }
    }
    let mut memories = Vec::new();
    for vmm in VMMS {
        eprintln!("memory: {}", vmm.name());
        memories.push(resident(vmm, &devices)?);
    }
    table(&boots, &memories);
    Ok(ExitCode::SUCCESS)
}

impl Vmm {
    fn name(self) -> &'static str {
        match self {
            Self::Atoll => "atoll",
            Self::Q35 => "QEMU q35",
            Self::Microvm => "QEMU microvm",
        }
    }

    /// Runs the guest with its first serial port on standard output; `work` is what it does in
    /// user space before it powers off.
    fn command(self, devices: &Devices, work: &str) -> Command {
        let cmdline = format!("console=ttyS0 quiet panic=-1 run={work}");
        let disk = devices.disk.path();
        let mut command = match self {
            Self::Atoll => Self::atoll(disk, devices.tap.name()),
            Self::Q35 => Self::qemu("q35", "pci", disk, devices.tap.name()),
            Self::Microvm => Self::qemu("microvm,rtc=on", "device", disk, devices.tap.name()),
        };
        let (kernel, initrd, append) = match self {
            Self::Atoll => ("--kernel", "--initrd", "--cmdline"),
            _ => ("-kernel", "-initrd", "-append"),
        };
        command.arg(kernel).arg(artifacts::get("vmlinux"));
        command.arg(initrd).arg(artifacts::get("initramfs.cpio.gz"));
        command.arg(append).arg(cmdline);
        command
    }

    fn atoll(disk: &Path, tap: &str) -> Command {
        let mut command = Command::new(program::ours("atoll"));
        command
            .args(["run", "--memory", MEMORY, "--serial", "stdio", "--console", "file=/dev/null"])
            .arg("--disk")
            .arg(format!("path={}", disk.display()))
            .arg("--net")
            .arg(format!("tap={tap}"));
        command
    }

    fn qemu(machine: &str, bus: &str, disk: &Path, tap: &str) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-accel", "kvm", "-cpu", "host", "-m", MEMORY])
            .arg("-object")
            .arg(format!("memory-backend-memfd,id=ram,size={MEMORY},share=on"))
            .arg("-machine")
            .arg(format!("{machine},memory-backend=ram"))
            .arg("-drive")
            .arg(format!("if=none,id=disk,format=raw,file={}", disk.display()))
            .args(["-device", &format!("virtio-blk-{bus},drive=disk")])
            .args(["-netdev", &format!("tap,id=net,ifname={tap},script=no,downscript=no")])
            .args(["-device", &format!("virtio-net-{bus},netdev=net")])
            .args(["-chardev", "null,id=console"])
            .args(["-device", &format!("virtio-serial-{bus}")])
            .args(["-device", "virtconsole,chardev=console"])
            .args(["-serial", "stdio"]);
        command
    }
}

/// Times one boot to user space and to the VMM's exit.
fn boot(vmm: Vmm, devices: &Devices) -> Result<Boot> {
    let mut command = vmm.command(devices, "true");
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", vmm.name()))?;
    let mut serial = child.stdout.take().context("a piped output is there")?;
    ensure!(await_mark(&mut serial)?, "the guest under {} did not reach user space", vmm.name());
    let user_space = start.elapsed();
    let counters = counters::of(child.id());
    // Drained, so that nobody waits for us.
    std::io::copy(&mut serial, &mut std::io::sink())?;
    let status = child.wait()?;
    let exit = start.elapsed();
    ensure!(status.success(), "{} ended with {status}", vmm.name());
    Ok(Boot { user_space, exit, counters })
}

/// Looks at the memory of a VMM and its processes while its guest sleeps in user space.
fn resident(vmm: Vmm, devices: &Devices) -> Result<Memory> {
    let mut child = vmm
        .command(devices, "sleep,4")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", vmm.name()))?;
    let mut serial = child.stdout.take().context("a piped output is there")?;
    ensure!(await_mark(&mut serial)?, "the guest under {} did not reach user space", vmm.name());
    // Its drivers are loaded a moment later.
    std::thread::sleep(Duration::from_secs(2));
    let mut processes = procfs::children(child.id());
    processes.insert(child.id(), vmm.name().to_owned());
    let memory = processes
        .into_iter()
        .filter_map(|(pid, name)| Some((name, memory::private(pid)?)))
        .collect();
    std::io::copy(&mut serial, &mut std::io::sink())?;
    child.wait()?;
    Ok(memory)
}

/// Reads up to the guest's mark; false when the output ends before.
fn await_mark(serial: &mut ChildStdout) -> Result<bool> {
    let mut reader = BufReader::with_capacity(1, serial.by_ref());
    let mut heard = Vec::new();
    while reader.read_until(MARK[MARK.len() - 1], &mut heard)? > 0 {
        if heard.ends_with(MARK) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn table(boots: &[Vec<Boot>; 3], memories: &[Memory]) {
    println!(
        "\n{:<28}{:>14}{:>14}{:>14}{:>12}",
        "median of 3", "atoll", "q35", "microvm", "atoll/q35"
    );
    let row = |name: &str, values: [f64; 3], digits: usize| {
        let [atoll, q35, microvm] = values;
        let ratio = if q35 > 0.0 { format!("{:.2}", atoll / q35) } else { "-".to_owned() };
        println!("{name:<28}{atoll:>14.digits$}{q35:>14.digits$}{microvm:>14.digits$}{ratio:>12}");
    };
    let time = |of: fn(&Boot) -> Duration| {
        boots.each_ref().map(|boots| median(boots.iter().map(|boot| of(boot).as_secs_f64())))
    };
    row("user space (s)", time(|boot| boot.user_space), 2);
    row("exit of the VMM (s)", time(|boot| boot.exit), 2);
    let mut names: Vec<_> =
        boots.iter().flatten().flat_map(|boot| boot.counters.keys().copied()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let counts = boots.each_ref().map(|boots| {
            median(boots.iter().map(|boot| *boot.counters.get(name).unwrap_or(&0) as f64))
        });
        if counts.iter().any(|count| *count > 0.0) {
            row(&format!("{name} to user space"), counts, 0);
        }
    }
    println!("\nprivate memory without the guest's (KiB)");
    for (name, kib) in memories.iter().flatten() {
        println!("{name:<28}{kib:>14}");
    }
}
