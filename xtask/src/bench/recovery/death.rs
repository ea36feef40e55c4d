//! The time from a device process's end to the first request that its successor completes, by the
//! way in which the successor comes.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use atoll_driver::{FrontEnd, Process, pass_fd};
use atoll_tests::scratch::Scratch;
use nix::sys::signal::Signal;

use super::load::{self, Disk, Load};

/// RestartSec= of our units.
const RESTART_SEC: Duration = Duration::from_millis(50);

/// The descriptor that a child's socket becomes.
const CHILD_FD: i32 = 3;

/// How a successor comes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Started by its front-end, on one end of a socket pair.
    Child,
    /// Started by a service manager that holds the socket.
    Service,
    /// Running before, on a socket of its own.
    Swap,
}

pub(super) const STYLES: [Style; 3] = [Style::Child, Style::Service, Style::Swap];

/// A process and its front-end.
struct Served {
    process: Process,
    front_end: FrontEnd,
}

/// Ends the process `deaths` times under load.
pub(super) fn measure(style: Style, depth: usize, deaths: usize) -> Result<Vec<Duration>> {
    let (disk, scratch) = (Disk::new(), Scratch::new());
    let mut load = Load::new(depth)?;
    let listener = UnixListener::bind(scratch.join("unit")).context("cannot listen")?;
    let mut served = match style {
        Style::Child => child(&disk, &mut load)?,
        Style::Service => unit(&disk, &mut load, &listener, Duration::ZERO, &scratch)?,
        Style::Swap => {
            let process = waiting(&disk, &scratch.join("0"))?;
            let front_end = load.survivor.attach(scratch.join("0"))?;
            Served { process, front_end }
        }
    };
    let mut times = Vec::with_capacity(deaths);
    for death in 1..=deaths {
        // Another moment of a request's life each time.
        load.run(depth * 4 + death % 17)?;
        std::thread::sleep(Duration::from_micros((death * 37 % 500) as u64));
        let successor = match style {
            Style::Swap => {
                let socket = scratch.join(&death.to_string());
                Some((waiting(&disk, &socket)?, socket))
            }
            _ => None,
        };

        let start = Instant::now();
        let next = match successor {
            Some((process, socket)) => {
                served.front_end.stop_queue(&load.survivor.queue)?;
                // What the old one has completed is not the new one's work.
                load.drain()?;
                load.fill()?;
                Served { process, front_end: load.survivor.attach(socket)? }
            }
            None => {
                served.process.signal(Signal::SIGKILL)?;
                served.process.child().wait().context("cannot reap the process")?;
                load.drain()?;
                load.fill()?;
                match style {
                    Style::Child => child(&disk, &mut load)?,
                    _ => unit(&disk, &mut load, &listener, RESTART_SEC, &scratch)?,
                }
            }
        };
        // As the VMM does: what the guest had kicked for may have been heard by the dead one.
        load.survivor.queue.kick()?;
        load.wait()?;
        times.push(start.elapsed());
        served = next;
    }
    load.finish()?;
    Ok(times)
}

/// A child as the VMM starts it.
fn child(disk: &Disk, load: &mut Load) -> Result<Served> {
    let (ours, theirs) = UnixStream::pair().context("cannot make a socket pair")?;
    let mut command = Command::new(load::program()?);
    command.arg(format!("--fd={CHILD_FD}")).args(disk.options());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    pass_fd(&mut command, &theirs, CHILD_FD)?;
    let process = Process::run(&mut command)?;
    drop((theirs, command));
    Ok(Served { process, front_end: load.survivor.attach_over(ours)? })
}

/// A unit as systemd restarts it; its front-end connects at once, and waits to be served.
fn unit(
    disk: &Disk,
    load: &mut Load,
    listener: &UnixListener,
    delay: Duration,
    scratch: &Scratch,
) -> Result<Served> {
    let stream = UnixStream::connect(scratch.join("unit")).context("cannot connect")?;
    std::thread::sleep(delay);
    let mut command = Command::new(load::program()?);
    command.arg(format!("--fd={CHILD_FD}")).args(disk.options());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    pass_fd(&mut command, listener, CHILD_FD)?;
    let process = Process::run(&mut command)?;
    Ok(Served { process, front_end: load.survivor.attach_over(stream)? })
}

/// A process that waits for its front-end.
fn waiting(disk: &Disk, socket: &Path) -> Result<Process> {
    let option = format!("--socket-path={}", socket.display());
    let arguments = disk.options().into_iter().chain([option]);
    let process = Process::spawn(&load::program()?, arguments)?;
    atoll_tests::wait_for("a process's socket", || socket.exists().then_some(()));
    Ok(process)
}
