//! Bytes a second through a console under Atoll and under QEMU, from and to a guest of a few instructions that
//! this machine's KVM runs at its own speed, whatever it can do with a kernel. The guest makes nothing of the
//! bytes, so that what differs is who carries them.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use atoll_tests::bare_console::{self, Direction, Registers};
use atoll_tests::process::Process;
use atoll_tests::scratch::Scratch;
use atoll_tests::{payload, wait_for};

use super::{MIB, told};
use crate::bench::median::median;

/// How long bytes go one way for a figure, and before the first.
const TIME: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_millis(200);

/// Figures of each kind; the median counts.
const RUNS: usize = 5;

/// Linux's: of a terminal and of what is typed, and of what is written to a port.
const BUFFERS: [u32; 2] = [4 << 10, 32 << 10];

#[derive(Clone, Copy)]
enum Vmm {
    Atoll,
    Qemu,
}

/// Measures both and prints the table.
pub(crate) fn measure() -> Result<ExitCode> {
    println!("MiB/s of a guest of a few instructions, median of {RUNS} (least to most)");
    println!("{:<30}{:>24}{:>24}{:>10}", "", "atoll", "QEMU", "ratio");
    for (direction, way) in [(Direction::FromGuest, "from"), (Direction::ToGuest, "to")] {
        for buffer in BUFFERS {
            let ours = rates(Vmm::Atoll, direction, buffer)?;
            let theirs = rates(Vmm::Qemu, direction, buffer)?;
            let ratio = median(ours.iter().copied()) / median(theirs.iter().copied());
            let name = format!("{way} the guest, {} KiB buffers", buffer >> 10);
            println!("{name:<30}{:>24}{:>24}{ratio:>10.2}", told(&ours), told(&theirs));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Figures, sorted.
fn rates(vmm: Vmm, direction: Direction, buffer: u32) -> Result<Vec<f64>> {
    let scratch = Scratch::new();
    let tty = scratch.join("tty");
    let mut process = vmm.start(&scratch, direction, buffer);
    let mut stream = wait_for("the console's socket", || {
        assert!(process.is_running(), "the VMM has ended: {}", process.stderr());
        UnixStream::connect(&tty).ok()
    });
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    rate(&mut stream, direction, WARM_UP)?;
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        rates.push(rate(&mut stream, direction, TIME)?);
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates)
}

fn rate(stream: &mut UnixStream, direction: Direction, time: Duration) -> Result<f64> {
    let mut piece = vec![b'x'; 256 << 10];
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < time {
        let moved = match direction {
            Direction::FromGuest => stream.read(&mut piece),
            Direction::ToGuest => stream.write(&piece),
        };
        match moved {
            Ok(moved) => {
                ensure!(moved > 0, "the console was closed");
                count += moved;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count as f64 / MIB / began.elapsed().as_secs_f64())
}

impl Vmm {
    fn start(self, scratch: &Scratch, direction: Direction, buffer: u32) -> Process {
        let tty = scratch.join("tty").display().to_string();
        match self {
            Self::Atoll => {
                let kernel = bare_console::kernel(direction, buffer, Registers::Bar0);
                let kernel = scratch.write("kernel", kernel).display().to_string();
                let console = format!("socket={tty}");
                let args = ["--kernel", &kernel, "--memory", "128M", "--grace", "0", "--console"];
                let args = ["run"].into_iter().chain(args).chain([console.as_str()]);
                Process::ours("atoll", args.chain(["--serial", "off"]))
            }
            Self::Qemu => {
                let code = bare_console::code(direction, buffer, Registers::Bar4);
                let firmware = scratch.write("firmware", payload::firmware(&code));
                let mut command = Command::new("qemu-system-x86_64");
                command.args(["-nodefaults", "-display", "none", "-M", "q35", "-accel", "kvm"]);
                command.args(["-m", "128", "-bios"]).arg(firmware);
                command.args(["-chardev", &format!("socket,id=tty,server=on,wait=off,path={tty}")]);
                command.args(["-device", "virtio-serial-pci,disable-legacy=on,addr=1"]);
                command.args(["-device", "virtconsole,chardev=tty"]);
                Process::spawn(command)
            }
        }
    }
}
