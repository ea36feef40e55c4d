//! One run of a command in a started machine: bytes in and out, the end of the command, the end of
//! the caller's patience. Starts no machine.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::{SigSet, Signal};

use super::machine::Machine;
use super::terminal::Raw;

/// How long the machine may take to boot; many times what it takes on a busy host.
const BOOT: Duration = Duration::from_secs(180);

/// How much of the kernel's messages is kept to be shown when the machine dies.
const KEPT: usize = 16 << 10;

/// Leaves a command that doesn't end, in a terminal: Ctrl-A, then x.
const ESCAPE: &[u8] = b"\x01x";

/// Where the command's standard output and error go.
pub(crate) struct Sinks {
    pub(crate) stdout: Box<dyn Write + Send>,
    pub(crate) stderr: Box<dyn Write + Send>,
}

/// How long the lab's command may take.
#[derive(Clone, Copy, Default)]
pub(crate) struct Patience {
    /// From its start to its end.
    pub(crate) total: Option<Duration>,
    /// From one sign of life on its outputs to the next.
    pub(crate) silence: Option<Duration>,
}

/// What a run of the lab came to.
pub(crate) struct Outcome {
    /// The command's exit code.
    pub(crate) code: u8,
    /// From the machine's start to the command's.
    pub(crate) boot: Duration,
}

/// What the threads of a session tell it.
enum Event {
    /// The lab's init said something.
    Report(String),
    /// The machine is gone.
    Gone,
    /// The caller wants out.
    Signal(Signal),
}

/// Follows the command to its end, then stops the machine.
pub(super) fn follow(
    mut machine: Machine,
    terminal: bool,
    sinks: Sinks,
    started: Instant,
    patience: Patience,
) -> Result<Outcome> {
    let _raw = if terminal { Some(Raw::enter()?) } else { None };
    let (events, inbox) = mpsc::channel();
    keep_awake(machine.wires.serial.try_clone()?);
    let messages = keep_tail(machine.wires.serial);
    reports(machine.wires.report, events.clone());
    let (output, input) = if terminal {
        (machine.wires.terminal.try_clone()?, machine.wires.terminal)
    } else {
        (machine.wires.stdout, machine.wires.stdin)
    };
    let heard = Arc::new(Mutex::new(started));
    let outputs = [(output, sinks.stdout), (machine.wires.stderr, sinks.stderr)]
        .map(|(from, to)| pump(from, to, Arc::clone(&heard)));
    // Shut down, not closed: QEMU forgets what it has not passed on yet when its peer closes.
    let _input = input.try_clone()?;
    feed(input, terminal, events.clone());
    signals(events);

    let mut boot = None;
    let result = loop {
        let limit = match boot {
            None => Some((started + BOOT, format!("the lab did not boot in {BOOT:?}"))),
            Some(at) => limit(patience, at, *heard.lock().unwrap_or_else(PoisonError::into_inner)),
        };
        let event = match limit {
            None => inbox.recv().unwrap_or(Event::Gone),
            Some((deadline, sentence)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                match inbox.recv_timeout(left) {
                    Ok(event) => event,
                    Err(RecvTimeoutError::Disconnected) => Event::Gone,
                    Err(RecvTimeoutError::Timeout) if left.is_zero() => break Err(sentence),
                    // The command may have said something meanwhile.
                    Err(RecvTimeoutError::Timeout) => continue,
                }
            }
        };
        match event {
            Event::Report(line) if line == "ready" => boot = Some(Instant::now()),
            Event::Report(line) => {
                if let Some(code) = line.strip_prefix("exit ").and_then(|code| code.parse().ok()) {
                    break Ok(code);
                }
            }
            Event::Gone => break Err("the lab's machine ended before the command".to_owned()),
            Event::Signal(signal) => break Ok(128 + signal as u8),
        }
    };

    // Whatever happened, the machine has done its work: what the command wrote is in our sockets.
    let _ = machine.qemu.kill();
    let _ = machine.qemu.wait();
    for output in outputs {
        let _ = output.join();
    }
    match result {
        Ok(code) => {
            let boot = boot.unwrap_or(started).saturating_duration_since(started);
            Ok(Outcome { code, boot })
        }
        Err(sentence) => {
            let messages = messages.lock().map(|kept| kept.clone()).unwrap_or_default();
            bail!("{sentence}\n{}", String::from_utf8_lossy(&messages).trim_end());
        }
    }
}

/// When the command that started `at` and was last `heard` has used up the caller's patience, and
/// what is to be said then.
fn limit(patience: Patience, at: Instant, heard: Instant) -> Option<(Instant, String)> {
    let total = patience
        .total
        .map(|total| (at + total, format!("the command did not end in {} s", total.as_secs())));
    let silence = patience.silence.map(|silence| {
        let sentence = format!("the command said nothing for {} s", silence.as_secs());
        (heard.max(at) + silence, sentence)
    });
    total.into_iter().chain(silence).min()
}

impl Outcome {
    /// The command's exit code as ours.
    pub(crate) fn exit(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

fn reports(wire: UnixStream, events: Sender<Event>) {
    thread::spawn(move || {
        for line in BufReader::new(wire).lines().map_while(io::Result::ok) {
            let _ = events.send(Event::Report(line));
        }
        let _ = events.send(Event::Gone);
    });
}

/// Passes an output on, and notes when there was some.
fn pump(
    mut from: UnixStream,
    mut to: Box<dyn Write + Send>,
    heard: Arc<Mutex<Instant>>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let Some(bytes) = buffer.get(..count) else {
                return;
            };
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            // When nobody reads us any more, the command still runs to its end.
            let _ = to.write_all(bytes).and_then(|()| to.flush());
        }
    })
}

/// Passes our standard input on. In a terminal the escape sequence ends the session.
fn feed(mut to: UnixStream, terminal: bool, events: Sender<Event>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut last = 0;
        while let Ok(count @ 1..) = io::stdin().lock().read(&mut buffer) {
            let Some(bytes) = buffer.get(..count) else {
                return;
            };
            let escaped = bytes.iter().any(|&byte| {
                let pair = [last, byte];
                last = byte;
                pair == ESCAPE
            });
            if terminal && escaped {
                let _ = events.send(Event::Signal(Signal::SIGTERM));
                return;
            }
            if to.write_all(bytes).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// Reports the signals that `super::main` has blocked.
fn signals(events: Sender<Event>) {
    thread::spawn(move || {
        while let Ok(signal) = ending_signals().wait() {
            let _ = events.send(Event::Signal(signal));
        }
    });
}

/// The signals that end a session in good order.
pub(super) fn ending_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Interrupts the machine every second. QEMU 7.2 may lose an interrupt of its timer while it enters
/// a guest, and an idle machine that waits for its timer alone then sleeps for ever.
fn keep_awake(mut serial: UnixStream) {
    // To a terminal that nobody has stopped, "go on" means nothing.
    const XON: u8 = 0x11;
    thread::spawn(move || {
        while serial.write_all(&[XON]).is_ok() {
            thread::sleep(Duration::from_secs(1));
        }
    });
}

fn keep_tail(mut from: UnixStream) -> Arc<Mutex<Vec<u8>>> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let tail = Arc::clone(&kept);
    thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let (Some(bytes), Ok(mut tail)) = (buffer.get(..count), tail.lock()) else {
                return;
            };
            tail.extend_from_slice(bytes);
            let surplus = tail.len().saturating_sub(KEPT);
            tail.drain(..surplus);
        }
    });
    kept
}
