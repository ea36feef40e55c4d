//! A console process with a driver attached, and bytes that cannot be mistaken.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use atoll_driver::{Buffer, FrontEnd, INDIRECT_DESC, Memory, Process, Queue, TIMEOUT, VERSION_1};
use nix::pty::{OpenptyResult, Winsize, openpty};
use tempfile::TempDir;

pub(crate) const F_SIZE: u64 = 1 << 0;
pub(crate) const RECEIVE: usize = 0;
pub(crate) const TRANSMIT: usize = 1;
/// Long enough to see that something does not happen.
pub(crate) const MOMENT: Duration = Duration::from_millis(150);

/// The length of the driver's buffers.
const BUFFER: usize = 1024;
const BUFFERS: usize = 16;

pub(crate) struct Rig {
    pub(crate) process: Process,
    pub(crate) guest: Guest,
    pub(crate) dir: TempDir,
}

/// The guest's side.
pub(crate) struct Guest {
    pub(crate) device: FrontEnd,
    pub(crate) receive: Queue,
    pub(crate) transmit: Queue,
    /// Addresses of transmit buffers that are free.
    free: Vec<u64>,
    /// Addresses of the outstanding buffers of each queue, by head.
    printing: Vec<(u16, u64)>,
    posted: Vec<(u16, u64)>,
}

impl Rig {
    /// Starts the process with what `options` makes of a directory of its own.
    pub(crate) fn start(options: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = command(dir.path(), options(dir.path()));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self::run(dir, &mut command)
    }

    /// Runs a command made by [`command`].
    pub(crate) fn run(dir: TempDir, command: &mut Command) -> Self {
        let process = Process::run(command).unwrap();
        let guest = Guest::attach(&front_end(dir.path()), F_SIZE);
        Self { process, guest, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The guest's device comes up again, as after a reboot.
    pub(crate) fn reattach(&mut self) {
        self.guest.device.disconnect();
        self.guest = Guest::attach(&front_end(self.dir.path()), F_SIZE);
    }

    /// Another front-end comes, which has no queues yet.
    pub(crate) fn reconnect(&mut self) -> FrontEnd {
        self.guest.device.disconnect();
        let memory = Memory::new(1 << 20).unwrap();
        let mut device = FrontEnd::connect(front_end(self.dir.path()), memory).unwrap();
        device.negotiate(VERSION_1 | INDIRECT_DESC).unwrap();
        device
    }

    /// How often the thread `name` has gone to sleep.
    pub(crate) fn switches_of(&self, name: &str) -> u64 {
        let tasks = format!("/proc/{}/task", self.process.id());
        let statuses = std::fs::read_dir(tasks).unwrap().map(|task| {
            std::fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default()
        });
        let named = |status: &String| status.starts_with(&format!("Name:\t{name}\n"));
        let status = statuses.into_iter().find(named).expect("a thread of that name");
        let switches = status.split_once("\nvoluntary_ctxt_switches:").unwrap().1;
        switches.lines().next().unwrap().trim().parse().unwrap()
    }

    /// SIGTERM ends it well.
    pub(crate) fn terminate(&mut self) {
        let (status, stderr) = self.process.terminate().unwrap();
        assert!(status.success(), "{status}: {stderr}");
        assert!(!front_end(self.dir.path()).exists(), "the socket file is removed");
    }
}

/// The process to start, serving the front-end in `dir`.
pub(crate) fn command<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll-console"));
    command.arg(format!("--socket-path={}", front_end(dir).display())).args(args);
    command
}

fn front_end(dir: &Path) -> PathBuf {
    dir.join("front-end.sock")
}

impl Guest {
    pub(crate) fn attach(socket: &Path, features: u64) -> Self {
        let device = FrontEnd::connect(socket, Memory::new(1 << 20).unwrap()).unwrap();
        Self::negotiate(device, features)
    }

    pub(crate) fn negotiate(mut device: FrontEnd, features: u64) -> Self {
        device.negotiate(VERSION_1 | features).unwrap();
        let receive = device.start_queue(RECEIVE, 64).unwrap();
        let transmit = device.start_queue(TRANSMIT, 64).unwrap();
        let allocate = |_| device.memory().allocate(BUFFER, 1).unwrap();
        let free = (0..BUFFERS).map(allocate).collect();
        let (printing, posted) = (Vec::new(), Vec::new());
        let mut guest = Self { device, receive, transmit, free, printing, posted };
        for _ in 0..BUFFERS {
            let address = guest.device.memory().allocate(BUFFER, 1).unwrap();
            guest.post(address);
        }
        guest
    }

    pub(crate) fn post(&mut self, address: u64) {
        let head = self.receive.submit(&[Buffer::writable(address, BUFFER as u32)]).unwrap();
        self.posted.push((head, address));
    }

    /// Prints `bytes`, and waits until the device has taken them all.
    pub(crate) fn print(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(BUFFER) {
            let address = match self.free.pop() {
                Some(address) => address,
                None => self.reap(),
            };
            self.device.memory().write(address, piece).unwrap();
            let buffer = Buffer::readable(address, piece.len() as u32);
            let head = self.transmit.submit(&[buffer]).unwrap();
            self.printing.push((head, address));
        }
        while !self.printing.is_empty() {
            let address = self.reap();
            self.free.push(address);
        }
    }

    fn reap(&mut self) -> u64 {
        let used = self.transmit.wait(TIMEOUT).unwrap();
        take(&mut self.printing, used.head)
    }

    /// Reads until `len` bytes were typed.
    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut typed = Vec::new();
        while typed.len() < len {
            let (address, keys) = self.take_keys();
            typed.extend(keys);
            self.post(address);
        }
        typed
    }

    /// What was typed into the next buffer, which the device does not get back.
    pub(crate) fn take_keys(&mut self) -> (u64, Vec<u8>) {
        let used = self.receive.wait(TIMEOUT).unwrap();
        let address = take(&mut self.posted, used.head);
        (address, self.device.memory().get(address, used.len as usize).unwrap())
    }

    /// Columns and rows, as the driver reads them.
    pub(crate) fn size(&mut self) -> (u16, u16) {
        let config = self.device.config(0, 4).unwrap();
        (u16::from_le_bytes([config[0], config[1]]), u16::from_le_bytes([config[2], config[3]]))
    }
}

fn take(outstanding: &mut Vec<(u16, u64)>, head: u16) -> u64 {
    let at = outstanding.iter().position(|&(known, _)| known == head).expect("a buffer of ours");
    outstanding.swap_remove(at).1
}

/// Bytes that differ by place, so that none can be lost or swapped unseen.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// A terminal with a window of this size: its two ends.
pub(crate) fn terminal(columns: u16, rows: u16) -> OpenptyResult {
    openpty(Some(&Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }), None)
        .unwrap()
}

/// Reads exactly `len` bytes on a thread of its own.
pub(crate) fn reader(
    mut from: impl Read + Send + 'static,
    len: usize,
) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = vec![0; len];
        from.read_exact(&mut bytes).unwrap();
        bytes
    })
}

/// Connects, as soon as somebody listens.
pub(crate) fn connect(path: &Path) -> UnixStream {
    eventually("a listener", || UnixStream::connect(path).ok().map(with_timeout))
}

fn with_timeout(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Waits for `what`, for a limited time.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} within {TIMEOUT:?}");
        thread::sleep(Duration::from_millis(2));
    }
}
