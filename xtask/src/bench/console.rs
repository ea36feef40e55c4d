//! `cargo xtask bench console`: bytes a second between a guest and whoever is at its console's socket,
//! under Atoll and under QEMU, in one boot of the place where guests run. A console is a terminal in the
//! guest (`/dev/hvc1`); a named port is a file without a terminal's ways.

pub(crate) mod bare;
pub(crate) mod driver;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use atoll_tests::guest::Guest;
use atoll_tests::scratch::Scratch;
use atoll_tests::{qemu, wait_for};

use super::counters;
use super::median::median;

/// How long bytes go one way for a figure.
const SECONDS: u32 = 4;

/// Figures of each kind; the median counts.
const RUNS: usize = 3;

const MIB: f64 = (1 << 20) as f64;

#[derive(Clone, Copy)]
enum Vmm {
    Atoll,
    Qemu,
}

/// What is measured: which file of the guest's, which socket of ours, and which way.
struct Row {
    name: &'static str,
    open: &'static str,
    socket: &'static str,
    out: bool,
}

const CONSOLE: &str = "exec 5<> /dev/hvc1; stty raw -echo <&5";
const PORT: &str = "exec 5<&-; exec 5<> \
    /dev/$(basename $(dirname $(grep -l org.atoll.bench /sys/class/virtio-ports/*/name)))";

const ROWS: [Row; 4] = [
    Row { name: "console, from the guest", open: CONSOLE, socket: "tty", out: true },
    Row { name: "console, to the guest", open: CONSOLE, socket: "tty", out: false },
    Row { name: "named port, from the guest", open: PORT, socket: "port", out: true },
    Row { name: "named port, to the guest", open: PORT, socket: "port", out: false },
];

/// Measures both and prints the table.
pub(crate) fn measure() -> Result<ExitCode> {
    let atoll = rates(Vmm::Atoll)?;
    let qemu = rates(Vmm::Qemu)?;
    println!("MiB/s, median of {RUNS} (least to most)");
    println!("{:<30}{:>24}{:>24}{:>10}", "", "atoll", "QEMU", "ratio");
    for ((row, ours), theirs) in ROWS.iter().zip(&atoll).zip(&qemu) {
        let [our_rates, their_rates] = [&ours.rates, &theirs.rates];
        let ratio = median(our_rates.iter().copied()) / median(their_rates.iter().copied());
        println!("{:<30}{:>24}{:>24}{ratio:>10.2}", row.name, told(our_rates), told(their_rates));
    }
    println!("exits of the guest's CPUs for each KiB moved, by KVM's counters");
    for ((row, ours), theirs) in ROWS.iter().zip(&atoll).zip(&qemu) {
        println!("{:<30}atoll: {}", row.name, ours.exits_told());
        println!("{:<30}QEMU:  {}", "", theirs.exits_told());
    }
    Ok(ExitCode::SUCCESS)
}

/// What was measured of a row.
struct Figures {
    /// Sorted.
    rates: Vec<f64>,
    /// Bytes in all, and what KVM counted meanwhile.
    moved: f64,
    counted: BTreeMap<&'static str, u64>,
}

impl Figures {
    fn exits_told(&self) -> String {
        let each = |(name, count): (&&str, &u64)| {
            let rate = *count as f64 / (self.moved / 1024.0);
            (rate >= 0.005).then(|| format!("{name} {rate:.2}"))
        };
        self.counted.iter().filter_map(each).collect::<Vec<_>>().join(", ")
    }
}

/// What one figure is made of.
struct Moved {
    bytes: f64,
    seconds: f64,
}

/// Sorted.
fn told(rates: &[f64]) -> String {
    let least = rates.first().copied().unwrap_or(f64::NAN);
    let most = rates.last().copied().unwrap_or(f64::NAN);
    format!("{:.2} ({least:.2} to {most:.2})", median(rates.iter().copied()))
}

/// The figures of each row.
fn rates(vmm: Vmm) -> Result<Vec<Figures>> {
    let scratch = Scratch::new();
    let mut guest = vmm.boot(&scratch);
    let mut all = Vec::new();
    for row in &ROWS {
        let socket = scratch.join(row.socket);
        guest.check(row.open);
        let mut figures = Figures { rates: Vec::new(), moved: 0.0, counted: BTreeMap::new() };
        for _ in 0..RUNS {
            let before = counters::of(guest.pid());
            let moved = match row.out {
                true => from_guest(&mut guest, &socket)?,
                false => to_guest(&mut guest, &socket)?,
            };
            for (name, count) in counters::of(guest.pid()) {
                let more = count.saturating_sub(before.get(name).copied().unwrap_or(0));
                *figures.counted.entry(name).or_default() += more;
            }
            figures.moved += moved.bytes;
            figures.rates.push(moved.bytes / MIB / moved.seconds);
        }
        figures.rates.sort_by(f64::total_cmp);
        all.push(figures);
    }
    guest.power_off();
    Ok(all)
}

impl Vmm {
    fn boot(self, scratch: &Scratch) -> Guest {
        let [tty, port] = ["tty", "port"].map(|name| scratch.join(name).display().to_string());
        let name = "org.atoll.bench";
        match self {
            Self::Atoll => Guest::builder()
                .cpus(2)
                .console(&format!("socket={tty},port={name}:socket={port}"))
                .boot(),
            Self::Qemu => qemu::builder()
                .arg("-smp", "2".to_owned())
                .arg("-chardev", format!("socket,id=tty,server=on,wait=off,path={tty}"))
                .arg("-device", "virtconsole,chardev=tty".to_owned())
                .arg("-chardev", format!("socket,id=port,server=on,wait=off,path={port}"))
                .arg("-device", format!("virtserialport,chardev=port,name={name}"))
                .boot(),
        }
    }
}

fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = wait_for("the console's socket", || UnixStream::connect(socket).ok());
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// The guest prints as fast as it can, and we count between the first byte and the last.
fn from_guest(guest: &mut Guest, socket: &Path) -> Result<Moved> {
    let mut stream = connect(socket)?;
    let reading = std::thread::spawn(move || -> Result<Moved> {
        let mut piece = vec![0; 1 << 20];
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut count = 0;
        ensure!(stream.read(&mut piece)? > 0, "the console was closed");
        let began = Instant::now();
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut last = began;
        loop {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(more) => (count, last) = (count + more, Instant::now()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Moved { bytes: count as f64, seconds: (last - began).as_secs_f64() })
    });
    // Killed in the end, which is what is meant to happen.
    guest.run(&format!("timeout {SECONDS} cat /dev/zero >&5"));
    reading.join().ok().context("the reader has failed")?
}

/// We type as fast as the guest takes it, and it counts.
fn to_guest(guest: &mut Guest, socket: &Path) -> Result<Moved> {
    let mut stream = connect(socket)?;
    let stop = stream.try_clone()?;
    let typing = std::thread::spawn(move || {
        let piece = vec![b'x'; 64 << 10];
        // Until it is closed.
        while stream.write_all(&piece).is_ok() {}
    });
    let counted = guest.check(&format!("timeout {SECONDS} cat <&5 | wc -c"));
    stop.shutdown(std::net::Shutdown::Both)?;
    typing.join().ok().context("the writer has failed")?;
    // The shell may say as well that it has ended something.
    let number = counted.split_whitespace().find_map(|word| word.parse::<f64>().ok());
    let counted = number.with_context(|| format!("wc counted nothing: {counted}"))?;
    // What was on its way goes nowhere.
    guest.run("timeout 2 cat <&5 > /dev/null");
    Ok(Moved { bytes: counted, seconds: f64::from(SECONDS) })
}
