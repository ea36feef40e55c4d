//! `cargo xtask bench traffic`: what a stock guest's network card on a TAP carries, and what that costs
//! whoever serves it: under Atoll, and under QEMU without and with the kernel's vhost-net. All guests
//! run in one boot of the place where guests run, and take turns.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use atoll_tests::guest::Guest;
use atoll_tests::image::Image;
use atoll_tests::network::{Tap, iperf_server};
use atoll_tests::process::Process;
use atoll_tests::scratch::Scratch;
use atoll_tests::{qemu, wait_for};
use serde_json::Value;

use super::cpu;
use super::median::median;
use crate::command;

/// Turns of each.
const ROUNDS: usize = 7;

/// How long one run of iperf3 takes.
const SECONDS: u32 = 4;

/// Round trips in a turn, of each of these kinds: how many there are, and the seconds from one to the next.
/// With 10 ms or less `ping` doesn't sleep but gives up the CPU again and again, so that where there is
/// one, it is busy and warm; with more the host is at rest, as it mostly is when something arrives.
const AT_REST: Pings = Pings { count: 150, every: "0.05" };
const BUSY: Pings = Pings { count: 300, every: "0.01" };

struct Pings {
    count: u32,
    every: &'static str,
}

/// Who serves the card.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Server {
    /// A child of `atoll`.
    Atoll,
    /// The same program with QEMU as its front-end.
    UnderQemu,
    Qemu,
    Vhost,
}

const SERVERS: [Server; 4] = [Server::Atoll, Server::UnderQemu, Server::Qemu, Server::Vhost];

/// What is measured, with its unit.
const FIGURES: [&str; 12] = [
    "TCP from the guest, Mbit/s",
    "  CPU of who serves, ms/Gbit",
    "TCP to the guest, Mbit/s",
    "  CPU of who serves, ms/Gbit",
    "UDP from the guest, 64 bytes, packets/s",
    "  CPU of who serves, us/packet",
    "round trip at rest, p50, us",
    "round trip at rest, p99, us",
    "  CPU of who serves, us",
    "round trip beside a busy program, p50, us",
    "round trip beside a busy program, p99, us",
    "  CPU of who serves, us",
];

/// A guest with its card.
struct Host {
    server: Server,
    guest: Guest,
    tap: Tap,
    /// What serves the card where the VMM starts nothing.
    card: Option<Process>,
    _iperf: Process,
    _scratch: Scratch,
}

/// Measures all and prints the table.
pub(crate) fn measure() -> Result<ExitCode> {
    // Without it there is no device, and no row.
    let _absent = command::quietly(Command::new("modprobe").arg("vhost_net"));
    let mut hosts = Vec::new();
    let mut roots = Vec::new();
    for server in SERVERS {
        if server == Server::Vhost && !Path::new("/dev/vhost-net").exists() {
            eprintln!("skipped: there is no /dev/vhost-net");
            continue;
        }
        let root = Image::debian();
        eprintln!("booting a guest: {}", server.name());
        hosts.push(Host::boot(server, &root));
        roots.push(root);
    }
    let mut runs: BTreeMap<Server, Vec<Vec<f64>>> = BTreeMap::new();
    for round in 1..=ROUNDS {
        for host in &mut hosts {
            eprintln!("turn {round} of {ROUNDS}: {}", host.server.name());
            runs.entry(host.server).or_default().push(host.turn()?);
        }
    }
    print(&runs);
    hosts.iter_mut().for_each(|host| drop(host.guest.power_off()));
    Ok(ExitCode::SUCCESS)
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Atoll => "atoll",
            Self::UnderQemu => "QEMU, atoll-net",
            Self::Qemu => "QEMU",
            Self::Vhost => "QEMU, vhost-net",
        }
    }
}

impl Host {
    fn boot(server: Server, root: &Image) -> Self {
        let tap = Tap::new();
        let scratch = Scratch::new();
        let mut card = None;
        let mut guest = match server {
            Server::Atoll => Guest::debian(root).net(&tap).boot(),
            _ => {
                let drive = format!("if=none,id=root,format=raw,file={}", root.path().display());
                let qemu = qemu::builder()
                    .cmdline("root=/dev/vda rw")
                    .arg("-name", "guest,debug-threads=on".to_owned())
                    .arg("-drive", drive)
                    .arg("-device", "virtio-blk-pci,drive=root".to_owned());
                if server == Server::UnderQemu {
                    let socket = scratch.join("net");
                    card = Some(serve(&tap, &socket));
                    qemu.net(&socket).boot()
                } else {
                    qemu.tap(&tap, server == Server::Vhost).boot()
                }
            }
        };
        let device = guest.check("ls /sys/class/net | grep -v '^lo$'");
        guest.check(&tap.guest_setup(&device));
        let iperf = iperf_server(&tap.host().to_string());
        Self { server, guest, tap, card, _iperf: iperf, _scratch: scratch }
    }

    /// All figures once.
    fn turn(&mut self) -> Result<Vec<f64>> {
        let (from, from_cpu) = self.tcp("")?;
        let (to, to_cpu) = self.tcp("--reverse")?;
        let (packets, packets_cpu) = self.udp()?;
        let mut figures = vec![from, from_cpu, to, to_cpu, packets, packets_cpu];
        for pings in [AT_REST, BUSY] {
            figures.extend(self.ping(&pings)?);
        }
        Ok(figures)
    }

    /// Megabits a second, and milliseconds on a CPU for each gigabit.
    fn tcp(&mut self, direction: &str) -> Result<(f64, f64)> {
        let before = self.spent()?;
        let report = self.iperf(direction)?;
        let spent = self.spent()? - before;
        let rate = number(&report, "/end/sum_received/bits_per_second")?;
        let bits = number(&report, "/end/sum_received/bytes")? * 8.0;
        Ok((rate / 1e6, spent / 1e6 / (bits / 1e9)))
    }

    /// Packets a second that arrive, and microseconds on a CPU for each.
    fn udp(&mut self) -> Result<(f64, f64)> {
        let before = self.spent()?;
        let report = self.iperf("--udp --bitrate 0 --length 64")?;
        let spent = self.spent()? - before;
        let sent = number(&report, "/end/sum/packets")?;
        let arrived = sent - number(&report, "/end/sum/lost_packets")?;
        Ok((arrived / number(&report, "/end/sum/seconds")?, spent / 1e3 / sent))
    }

    fn iperf(&mut self, how: &str) -> Result<Value> {
        let client = format!("iperf3 --json --interval 0 --time {SECONDS}");
        let report = self.guest.check(&format!("{client} --client {} {how}", self.tap.host()));
        let report: Value = serde_json::from_str(&report).context("iperf3's report")?;
        ensure!(report.get("error").is_none(), "iperf3: {report:#}");
        Ok(report)
    }

    /// Of round trips from the host: p50, p99 and time on a CPU, in us.
    fn ping(&mut self, pings: &Pings) -> Result<[f64; 3]> {
        let (count, guest) = (pings.count.to_string(), self.tap.guest().to_string());
        let before = self.spent()?;
        let mut ping = Command::new("ping");
        let said = command::read(ping.args(["-i", pings.every, "-c", &count, &guest]))?;
        let spent = self.spent()? - before;
        let time = |line: &str| line.split_once("time=")?.1.split(' ').next()?.parse().ok();
        let mut times: Vec<f64> = said.lines().filter_map(time).collect();
        ensure!(!times.is_empty(), "nothing came back: {said}");
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            times.get(times.len() * percent / 100).map_or(f64::NAN, |time| time * 1e3)
        };
        Ok([at(50), at(99), spent / 1e3 / times.len() as f64])
    }

    /// How long who serves the card has been on a CPU, in ns.
    fn spent(&self) -> Result<f64> {
        if let Some(card) = &self.card {
            return cpu::nanoseconds(card.pid());
        }
        let vmm = self.guest.pid();
        if self.server == Server::Atoll {
            let servers = self.guest.backends();
            let mut cards = servers.iter().filter(|(_, name)| *name == "atoll-net");
            let (pid, _) = cards.next().context("the card has no process")?;
            return cpu::nanoseconds(*pid);
        }
        // All of QEMU but its vCPUs, and what the kernel does for it.
        let vhost = format!("vhost-{vmm}");
        let own = tasks(&format!("/proc/{vmm}/task"), |name| !name.starts_with("CPU "));
        Ok(own + tasks("/proc", |name| name == vhost))
    }
}

/// `atoll-net` on a TAP, for whoever comes.
fn serve(tap: &Tap, socket: &Path) -> Process {
    let place = format!("--socket-path={}", socket.display());
    let card = Process::ours("atoll-net", [place, format!("--tap={}", tap.name())]);
    wait_for("the card's socket", || socket.exists().then_some(()));
    card
}

/// The time on a CPU of the tasks in `folder` whose names are `wanted`, in ns.
fn tasks(folder: &str, wanted: impl Fn(&str) -> bool) -> f64 {
    let spent = |task: &Path| {
        let name = fs::read_to_string(task.join("comm")).ok()?;
        let schedule = fs::read_to_string(task.join("schedstat")).ok()?;
        let spent: f64 = schedule.split_whitespace().next()?.parse().ok()?;
        wanted(name.trim()).then_some(spent)
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|task| spent(&task.path())).sum()
}

fn number(report: &Value, at: &str) -> Result<f64> {
    report.pointer(at).and_then(Value::as_f64).with_context(|| format!("iperf3 reports no {at}"))
}

fn print(runs: &BTreeMap<Server, Vec<Vec<f64>>>) {
    print!("median of {ROUNDS:<32}");
    runs.keys().for_each(|server| print!("{:>18}", server.name()));
    println!("{:>14}{:>14}", "atoll / QEMU", "atoll / vhost");
    for (row, figure) in FIGURES.iter().enumerate() {
        print!("{figure:<42}");
        let of = |server: &Server| -> Vec<f64> {
            let turns = runs.get(server).into_iter().flatten();
            turns.filter_map(|turn| turn.get(row)).copied().collect()
        };
        runs.keys().for_each(|server| print!("{:>18.1}", median(of(server))));
        for peer in [Server::Qemu, Server::Vhost] {
            // Of the median pair: what else the machine does meets both of it.
            let pairs = of(&Server::Atoll).into_iter().zip(of(&peer)).map(|(a, b)| a / b);
            print!("{:>14.2}", median(pairs));
        }
        println!();
    }
}
