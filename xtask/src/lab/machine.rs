//! The lab's machine: QEMU's emulation of a PC with AMD's virtualization, so that KVM works in it
//! on any host. Knows the wires that lead out of it, not what is said on them.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::image::Image;

/// The scratch disk's size; only what is written takes room.
const SCRATCH: u64 = 16 << 30;

/// The lab's processors. With two, half the guests of 64 vCPUs and about one in ten of four stall or
/// take the lab's kernel with them, whichever VMM runs them; with one it is rare (`docs/lab.md`).
const CPUS: &str = "1";

/// Our ends of the machine's wires.
pub(super) struct Wires {
    /// The kernel's messages.
    pub(super) serial: UnixStream,
    /// The command's terminal, when it has one.
    pub(super) terminal: UnixStream,
    /// What the lab's init reports.
    pub(super) report: UnixStream,
    pub(super) stdout: UnixStream,
    pub(super) stderr: UnixStream,
    pub(super) stdin: UnixStream,
}

/// A running machine.
pub(super) struct Machine {
    pub(super) qemu: Child,
    pub(super) wires: Wires,
}

/// Starts the machine; it dies with this process, whichever way that goes.
pub(super) fn start(image: &Image, run_disk: &File, memory: &str) -> Result<Machine> {
    let scratch = tempfile::tempfile().context("cannot make the scratch disk")?;
    scratch.set_len(SCRATCH).context("cannot make the scratch disk")?;

    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"])
        .args(["-m", memory, "-smp", CPUS])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-device", "virtio-serial-pci,max_ports=8"])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initramfs)
        .args(["-append", "console=ttyS0 panic=-1 nokaslr mitigations=off quiet"]);

    let mut inherited = Vec::new();
    let wires = Wires {
        serial: wire(&mut qemu, &mut inherited, "serial", Some("isa-serial"))?,
        terminal: wire(&mut qemu, &mut inherited, "terminal", Some("virtconsole,nr=0"))?,
        report: wire(&mut qemu, &mut inherited, "report", Some("virtserialport,nr=1"))?,
        stdout: wire(&mut qemu, &mut inherited, "stdout", Some("virtserialport,nr=2"))?,
        stderr: wire(&mut qemu, &mut inherited, "stderr", Some("virtserialport,nr=3"))?,
        stdin: wire(&mut qemu, &mut inherited, "stdin", Some("virtserialport,nr=4"))?,
    };
    // In this order they are vda, vdb, ...; the kept images are never written to.
    disk(&mut qemu, "root", &image.root.to_string_lossy(), true);
    disk(&mut qemu, "guest", &image.guest.to_string_lossy(), true);
    disk(&mut qemu, "run", &inherit(run_disk)?, false);
    disk(&mut qemu, "scratch", &inherit(&scratch)?, false);

    let child = qemu
        .stdin(Stdio::null())
        // A terminal's Ctrl-C is for us: we end the machine when we have heard it.
        .process_group(0)
        .spawn()
        .context("cannot start qemu-system-x86_64 through setpriv")?;
    Ok(Machine { qemu: child, wires })
}

/// Adds a character device to the machine and returns our end of it.
fn wire(
    qemu: &mut Command,
    inherited: &mut Vec<OwnedFd>,
    name: &str,
    device: Option<&str>,
) -> Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair().context("cannot make a socket pair")?;
    stay_open(&theirs)?;
    qemu.arg("-chardev").arg(format!("socket,id={name},fd={}", theirs.as_raw_fd()));
    if let Some(device) = device {
        qemu.arg("-device").arg(format!("{device},chardev={name}"));
    }
    inherited.push(theirs.into());
    Ok(ours)
}

fn disk(qemu: &mut Command, name: &str, file: &str, snapshot: bool) {
    let snapshot = if snapshot { "on" } else { "off" };
    let file = file.replace(',', ",,");
    qemu.arg("-drive")
        .arg(format!(
            "if=none,id={name},format=raw,cache=unsafe,discard=unmap,snapshot={snapshot},file={file}"
        ))
        .arg("-device")
        .arg(format!("virtio-blk-pci,drive={name},serial={name}"));
}

/// A name under which the machine can open a file that has none.
fn inherit(file: &File) -> Result<String> {
    stay_open(file)?;
    Ok(format!("/dev/fd/{}", file.as_raw_fd()))
}

fn stay_open(fd: impl AsFd) -> Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).context("cannot hand a file to QEMU")?;
    Ok(())
}
