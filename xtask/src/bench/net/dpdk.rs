//! DPDK's virtio-user as the driver, which polls: on `atoll-net`, and on DPDK's own way from a
//! vhost-user socket to a TAP (`net_vhost` and `net_tap`).

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use atoll_driver::{Process, TIMEOUT};
use atoll_tests::program;
use atoll_tests::scratch::Scratch;

use super::side::Side;
use super::wire::{WAITING, Wire};
use super::work::{Contender, Figures, RUN, WARM_UP};
use crate::bench::cpu;

const TESTPMD: &str = "dpdk-testpmd";
const PROMPT: &str = "testpmd> ";
/// How often it is looked how many frames were taken, while two others want a CPU each.
const LOOK: Duration = Duration::from_micros(100);

/// DPDK's program, which does what it is told on its standard input.
struct Testpmd {
    process: Process,
    said: PathBuf,
    prompts: usize,
}

impl Testpmd {
    /// Starts it with devices, all of it on the CPU of `side`.
    fn start(scratch: &Scratch, name: &str, side: Side, devices: &[String]) -> Result<Self> {
        let (said, cpu) = (scratch.join(name), side.cpu()?);
        let mut command = Command::new(TESTPMD);
        command.arg(format!("--lcores=0@{cpu},1@{cpu}"));
        // Memory that it can share without huge pages, and nothing left in the file system.
        command.args(["--no-huge", "-m", "128", "--single-file-segments"]);
        command.args(["--no-pci", "--no-shconf", "--no-telemetry"]);
        command.args(devices.iter().map(|device| format!("--vdev={device}")));
        command.args(["--", "--interactive", "--total-num-mbufs=8192"]);
        let stdout = File::create(&said).context("cannot make a file")?;
        let process = Process::run(command.stdin(Stdio::piped()).stdout(stdout))?;
        let mut testpmd = Self { process, said, prompts: 0 };
        testpmd.heard()?;
        Ok(testpmd)
    }

    /// Tells it a line, and waits until it has done that.
    fn tell(&mut self, line: &str) -> Result<()> {
        self.say(line)?;
        self.heard()
    }

    /// Tells it a line.
    fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.process.child().stdin.as_mut().context("it hears nothing")?;
        writeln!(stdin, "{line}").context("cannot tell it anything")
    }

    /// Waits for its next prompt.
    fn heard(&mut self) -> Result<()> {
        self.prompts += 1;
        let deadline = Instant::now() + 3 * TIMEOUT;
        loop {
            let said = fs::read_to_string(&self.said).context("cannot hear it")?;
            if said.matches(PROMPT).count() >= self.prompts {
                return Ok(());
            }
            let log = self.process.log();
            ensure!(self.process.running()?, "{TESTPMD} has ended: {said}{log}");
            ensure!(Instant::now() < deadline, "{TESTPMD} says nothing more: {said}{log}");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What is between the driver and the TAP.
enum Device {
    Ours(Process),
    Theirs(Testpmd),
}

/// A driver with its device.
pub(super) struct Dpdk {
    name: &'static str,
    wire: Wire,
    device: Device,
    driver: Testpmd,
    _scratch: Scratch,
}

impl Dpdk {
    /// Whether it can be had; said if not.
    pub(super) fn is_here() -> bool {
        let here = program::find(TESTPMD).is_some();
        if !here {
            eprintln!("skipped: there is no `{TESTPMD}`, which is in Debian's dpdk-dev");
        }
        here
    }

    /// On `atoll-net`.
    pub(super) fn on_ours(interface: &str, number: u8) -> Result<Self> {
        let scratch = Scratch::new();
        let socket = scratch.join("socket");
        let wire = Wire::make(interface, number)?;
        let mut command = Command::new(program::ours("atoll-net"));
        command.arg(format!("--socket-path={}", socket.display()));
        command.arg(format!("--tap={interface}"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = Side::Device.run(|| Ok(Process::run(&mut command)?))?;
        atoll_tests::wait_for("its socket", || socket.exists().then_some(()));
        let driver = Self::driver(&scratch)?;
        let name = "DPDK virtio-user on atoll-net";
        Ok(Self { name, wire, device: Device::Ours(process), driver, _scratch: scratch })
    }

    /// On DPDK's own.
    pub(super) fn on_theirs(interface: &str, number: u8) -> Result<Self> {
        let scratch = Scratch::new();
        let socket = scratch.join("socket");
        let devices = [
            format!("net_vhost0,iface={},queues=1", socket.display()),
            format!("net_tap0,iface={interface}"),
        ];
        let mut device = Testpmd::start(&scratch, "device", Side::Device, &devices)?;
        let wire = Wire::on(interface, number)?;
        device.tell("set fwd io")?;
        let driver = Self::driver(&scratch)?;
        let name = "DPDK virtio-user on DPDK net_vhost, net_tap";
        Ok(Self { name, wire, device: Device::Theirs(device), driver, _scratch: scratch })
    }

    fn driver(scratch: &Scratch) -> Result<Testpmd> {
        let socket = scratch.join("socket");
        let device = format!("net_virtio_user0,path={},mac=02:00:00:00:00:02", socket.display());
        Testpmd::start(scratch, "driver", Side::Driver, &[device])
    }

    /// Watches how the count of taken frames goes from `before` to `all`. Returns how many those were that
    /// were timed, and in how many seconds.
    fn watch(&self, before: u64, all: u64) -> Result<(u64, f64)> {
        // Until then it is still busy with what it was told.
        let settled = before + WAITING as u64 / 4;
        let deadline = Instant::now() + TIMEOUT;
        let mut began = None;
        loop {
            let now = self.wire.taken_by_guest()?;
            if now > settled {
                let (from, start) = *began.get_or_insert_with(|| (now, Instant::now()));
                if now >= all {
                    return Ok((now - from, start.elapsed().as_secs_f64()));
                }
            }
            ensure!(Instant::now() < deadline, "{now} of {all} frames were taken");
            thread::sleep(LOOK);
        }
    }

    fn cpu(&self) -> Result<f64> {
        match &self.device {
            Device::Ours(process) => cpu::nanoseconds(process.id()),
            Device::Theirs(testpmd) => cpu::nanoseconds(testpmd.process.id()),
        }
    }

    /// Tells its device, if that is DPDK's, which polls from "start" to "stop" and leaves nobody else the CPU.
    fn tell_theirs(&mut self, line: &str) -> Result<()> {
        match &mut self.device {
            Device::Ours(_) => Ok(()),
            Device::Theirs(device) => device.tell(line),
        }
    }

    /// Who holds back what takes frames from the TAP. Ours takes none that its driver has no buffers for.
    fn holder(&mut self) -> &mut Testpmd {
        match &mut self.device {
            Device::Ours(_) => &mut self.driver,
            Device::Theirs(device) => device,
        }
    }
}

impl Contender for Dpdk {
    fn name(&self) -> &'static str {
        self.name
    }

    fn send(&mut self, len: usize) -> Result<Figures> {
        self.driver.tell("set fwd txonly")?;
        self.driver.tell(&format!("set txpkts {len}"))?;
        self.tell_theirs("start")?;
        self.driver.tell("start")?;
        thread::sleep(WARM_UP);
        let (count, cpu, start) = (self.wire.sent_by_guest()?, self.cpu()?, Instant::now());
        thread::sleep(RUN);
        let count = self.wire.sent_by_guest()? - count;
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), self.cpu()? - cpu);
        self.driver.tell("stop")?;
        self.tell_theirs("stop")?;
        Ok(Figures::of_frames(count, seconds, cpu))
    }

    fn take(&mut self, len: usize) -> Result<Figures> {
        self.driver.tell("set fwd rxonly")?;
        let all = self.wire.taken_by_guest()? + WAITING as u64;
        self.wire.fill(len)?;
        if let Device::Theirs(_) = self.device {
            self.driver.tell("start")?;
        }
        // Ours takes at once what the driver has buffers for.
        thread::sleep(Duration::from_millis(20));
        let (before, cpu) = (self.wire.taken_by_guest()?, self.cpu()?);
        self.holder().say("start")?;
        let (taken, seconds) = Side::Driver.run(|| self.watch(before, all))?;
        let cpu = self.cpu()? - cpu;
        self.holder().heard()?;
        self.driver.tell("stop")?;
        self.tell_theirs("stop")?;
        let each = cpu / (all - before) as f64;
        Ok(Figures::of_frames(taken, seconds, each * taken as f64))
    }

    fn answer(&mut self, len: usize) -> Result<Figures> {
        self.driver.tell("set fwd 5tswap")?;
        self.tell_theirs("start")?;
        self.driver.tell("start")?;
        let asker = self.wire.asker()?;
        asker.ask(len, WARM_UP)?;
        let cpu = self.cpu()?;
        let times = asker.ask(len, RUN)?;
        let cpu = (self.cpu()? - cpu) / times.len() as f64;
        self.driver.tell("stop")?;
        self.tell_theirs("stop")?;
        Ok(Figures::of_round_trips(times, cpu))
    }
}
