//! The host's side: a network namespace, TAPs in it, and frames that come and go as a host's do, by
//! the host's own stack.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

use super::side::Side;
use crate::command;

/// How many frames wait in a TAP's queue for who takes them.
pub(super) const WAITING: usize = 16_384;

/// Ethernet, IPv4 and UDP.
const HEADERS: usize = 14 + 20 + 8;
/// Long enough for any answer that comes.
const PATIENCE: Duration = Duration::from_secs(2);
/// The port that the guest is asked at.
const PORT: u16 = 4242;

/// Leaves the host's network, and its chatter, for one of our own.
pub(super) fn enter() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)
        .context("cannot make a network namespace, which takes root")?;
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
        .context("cannot do without IPv6")?;
    ip("link set lo up")
}

/// A TAP's interface with a host behind it who talks to one guest.
pub(super) struct Wire {
    interface: String,
    socket: UdpSocket,
}

impl Wire {
    /// Makes the TAP `interface`, for subnet `number`.
    pub(super) fn make(interface: &str, number: u8) -> Result<Self> {
        ip(&format!("tuntap add dev {interface} mode tap"))?;
        Self::on(interface, number)
    }

    /// Sets up a TAP that is there.
    pub(super) fn on(interface: &str, number: u8) -> Result<Self> {
        let [host, guest] = [1, 2].map(|last| Ipv4Addr::new(10, 77, number, last));
        ip(&format!("address add {host}/24 dev {interface}"))?;
        ip(&format!("link set {interface} txqueuelen {}", 2 * WAITING))?;
        ip(&format!("link set {interface} up"))?;
        ip(&format!("neighbour add {guest} lladdr 02:00:00:00:00:02 dev {interface}"))?;
        let socket = UdpSocket::bind((host, PORT)).context("cannot bind a socket")?;
        socket.connect((guest, PORT)).context("cannot connect a socket")?;
        socket.set_read_timeout(Some(PATIENCE)).context("cannot set up a socket")?;
        Ok(Self { interface: interface.to_owned(), socket })
    }

    /// Puts frames of `len` bytes into its queue, which another CPU than the device's makes.
    pub(super) fn fill(&self, len: usize) -> Result<()> {
        let payload = vec![0x5a; len.saturating_sub(HEADERS)];
        Side::Driver.run(|| {
            let sent = (0..WAITING).try_for_each(|_| self.socket.send(&payload).map(drop));
            sent.context("cannot send a frame")
        })
    }

    /// How many frames of the guest the host has got so far.
    pub(super) fn sent_by_guest(&self) -> Result<u64> {
        self.count(2)
    }

    /// How many frames for the guest were taken so far.
    pub(super) fn taken_by_guest(&self) -> Result<u64> {
        self.count(10)
    }

    /// A column of the kernel's table (proc_net(5)).
    fn count(&self, column: usize) -> Result<u64> {
        let table = fs::read_to_string("/proc/thread-self/net/dev").context("cannot count")?;
        let start = format!("{}:", self.interface);
        let line = table.lines().find(|line| line.trim_start().starts_with(&start));
        let number = line.and_then(|line| line.split_whitespace().nth(column));
        number.context("the interface is gone")?.parse().context("cannot count")
    }

    /// Sends one frame.
    pub(super) fn send_one(&self) -> Result<()> {
        self.socket.send(&[0x5a; 22]).map(drop).context("cannot send a frame")
    }

    /// One who asks the guest, on a thread of the caller's choice.
    pub(super) fn asker(&self) -> Result<Asker> {
        Ok(Asker(self.socket.try_clone().context("cannot share a socket")?))
    }
}

/// Asks a guest that answers.
pub(super) struct Asker(UdpSocket);

impl Asker {
    /// Asks again and again, each time when the answer has come. The time of each round trip, in ns.
    pub(super) fn ask(&self, len: usize, time: Duration) -> Result<Vec<u32>> {
        let mut question = vec![0x5a; len.saturating_sub(HEADERS)];
        let mut answer = vec![0; question.len()];
        let mut times = Vec::with_capacity(1 << 16);
        let end = Instant::now() + time;
        for number in 0u64.. {
            let now = Instant::now();
            if now > end {
                break;
            }
            question.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
            self.0.send(&question).context("cannot send a frame")?;
            self.0.recv(&mut answer).context("no answer comes")?;
            ensure!(answer == question, "an answer is another's");
            times.push(u32::try_from(now.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
        Ok(times)
    }
}

/// Runs `ip` with words.
fn ip(words: &str) -> Result<()> {
    command::quietly(Command::new("ip").args(words.split(' ')))
}

/// A guest's frame of `len` bytes for some other host: what the kernel takes least trouble with.
pub(super) fn frame(len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    // Ethernet: to, from, IPv4 and the first byte of its header.
    let start = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 2, 8, 0, 0x45];
    frame.iter_mut().zip(start).for_each(|(to, from)| *to = from);
    frame
}
