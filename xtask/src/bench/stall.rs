//! `cargo xtask bench stall`: how long a guest's reads stand still when the process that serves its
//! disk is killed, under Atoll and under QEMU, in one boot of the place where guests run. The longest
//! latency that fio has seen is the stall.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use atoll_tests::guest::Guest;
use atoll_tests::image::{Image, MIB};
use atoll_tests::process::Process;
use atoll_tests::scratch::Scratch;
use atoll_tests::{procfs, program, qemu, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::report::Report;

/// Kills per figure.
const KILLS: usize = 5;

/// Requests in flight.
const DEPTHS: [u32; 2] = [1, 32];

/// How long fio reads; a stall that is longer shows as fio's end.
const SECONDS: u32 = 12;

/// When the process is killed: fio has started by then, wherever it runs.
const BEFORE: Duration = Duration::from_secs(6);

/// Who serves the disk, and to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pair {
    AtollChild,
    AtollSocket,
    Qemu,
}

const PAIRS: [Pair; 3] = [Pair::AtollChild, Pair::AtollSocket, Pair::Qemu];

/// The disk's process when it is ours to restart.
struct Server {
    pair: Pair,
    socket: std::path::PathBuf,
    process: Option<Process>,
}

/// Kills them all and prints the table.
pub(crate) fn measure() -> Result<ExitCode> {
    println!("longest latency of a read around a kill -9, s ({KILLS} kills)");
    println!("{:<48}{:>6}{:>10}{:>10}{:>10}", "", "depth", "least", "median", "most");
    for pair in PAIRS {
        let (root, data, scratch) = (Image::debian(), Image::patterned(64 * MIB), Scratch::new());
        let mut server = Server { pair, socket: scratch.join("disk"), process: None };
        server.start(data.path());
        let mut guest = pair.boot(&root, &data, &server);
        for depth in DEPTHS {
            let mut stalls = Vec::new();
            for _ in 0..KILLS {
                stalls.push(stall(&mut guest, &mut server, data.path(), depth)?);
            }
            row(pair.name(), depth, &mut stalls);
        }
        guest.power_off();
    }
    Ok(ExitCode::SUCCESS)
}

fn row(name: &str, depth: u32, stalls: &mut [f64]) {
    stalls.sort_by(f64::total_cmp);
    let at = |index: usize| stalls.get(index).copied().unwrap_or(f64::NAN);
    let (least, median, most) = (at(0), at(KILLS / 2), at(KILLS - 1));
    println!("{name:<48}{depth:>6}{least:>10.2}{median:>10.2}{most:>10.2}");
}

/// The longest latency while the process is killed once.
fn stall(guest: &mut Guest, server: &mut Server, data: &Path, depth: u32) -> Result<f64> {
    guest.check(&format!(
        "(fio --name=stall --filename=/dev/vdb --rw=randread --bs=4k --direct=1 --ioengine=libaio \
         --iodepth={depth} --time_based --runtime={SECONDS} --output-format=json \
         --output=/tmp/fio > /dev/null 2>&1; touch /tmp/over) &"
    ));
    std::thread::sleep(BEFORE);
    server.kill(guest)?;
    server.start(data);
    wait_for("fio's end", || (guest.run("rm /tmp/over 2> /dev/null").status == 0).then_some(()));
    let report = Report::of(&guest.check("cat /tmp/fio"))?;
    Ok(report.number("/read/clat_ns/max")? / 1e9)
}

impl Pair {
    fn name(self) -> &'static str {
        match self {
            Self::AtollChild => "atoll, its own atoll-blk",
            Self::AtollSocket => "atoll, atoll-blk restarted at once",
            Self::Qemu => "QEMU reconnect=1, its daemon restarted at once",
        }
    }

    fn boot(self, root: &Image, data: &Image, server: &Server) -> Guest {
        match self {
            Self::AtollChild => Guest::debian(root).disk(data).boot(),
            Self::AtollSocket => {
                // In the guest `--device`s come after the disks.
                Guest::debian(root).device("blk", &server.socket, "").boot()
            }
            Self::Qemu => qemu::builder()
                .cmdline("root=/dev/vda rw")
                .arg("-drive", format!("if=none,id=root,format=raw,file={}", root.path().display()))
                .arg("-device", "virtio-blk-pci,drive=root".to_owned())
                .arg(
                    "-chardev",
                    format!("socket,id=disk,reconnect=1,path={}", server.socket.display()),
                )
                .arg("-device", "vhost-user-blk-pci,chardev=disk".to_owned())
                .boot(),
        }
    }
}

impl Server {
    /// Starts the process that serves `data`, where that is not the VMM's to do.
    fn start(&mut self, data: &Path) {
        let (socket, data) = (self.socket.display(), data.display());
        let mut command = match self.pair {
            Pair::AtollChild => return,
            Pair::AtollSocket => {
                let mut command = Command::new(program::ours("atoll-blk"));
                command.arg(format!("--socket-path={socket}")).arg(format!("--blk-file={data}"));
                command
            }
            Pair::Qemu => {
                let mut command = Command::new("qemu-storage-daemon");
                command
                    .args(["--blockdev", &format!("driver=file,node-name=disk,filename={data}")])
                    .args(["--export"])
                    .arg(format!(
                        "type=vhost-user-blk,id=export,node-name=disk,writable=on,\
                         addr.type=unix,addr.path={socket}"
                    ));
                command
            }
        };
        command.env("RUST_LOG", "warn");
        self.process = Some(Process::spawn(command));
        wait_for("the disk's socket", || self.socket.exists().then_some(()));
    }

    fn kill(&mut self, guest: &Guest) -> Result<()> {
        match &mut self.process {
            Some(process) => {
                process.signal(Signal::SIGKILL);
                process.wait();
                // What is left of a socket says nothing of who listens.
                let _ = std::fs::remove_file(&self.socket);
            }
            None => {
                let disks = procfs::children(guest.pid()).into_iter();
                let (pid, _) = disks
                    .filter(|(_, name)| name == "atoll-blk")
                    .max_by_key(|(pid, _)| *pid)
                    .context("the disk has no process")?;
                kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
            }
        }
        Ok(())
    }
}
