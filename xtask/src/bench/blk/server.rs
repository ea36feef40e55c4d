//! Who serves the disk, and a driver attached to it.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use atoll_driver::{EVENT_IDX, FrontEnd, INDIRECT_DESC, Memory, Process, Queue, VERSION_1};
use atoll_tests::program;
use atoll_tests::scratch::Scratch;

use super::Disk;
use super::lane::{Figures, Lane, percentiles};
use super::work::{Backing, Cell};
use crate::bench::cpu;

/// Against whom ratios are.
pub(super) const PEER: &str = "qemu-storage-daemon io_uring";

/// How long a run takes, and how long it warms up before.
const RUN: Duration = Duration::from_millis(250);
const WARM_UP: Duration = Duration::from_millis(40);

/// Three descriptors a request at the largest depth.
const QUEUE: u16 = 512;

#[derive(Clone, Copy)]
enum Kind {
    /// With these options.
    Ours(&'static [&'static str]),
    /// With this `aio=`, and this iothread.
    Qemu(&'static str, Option<&'static str>),
}

/// A program in one of its settings.
pub(super) struct Server {
    pub(super) name: &'static str,
    kind: Kind,
}

pub(super) const SERVERS: &[Server] = &[
    Server { name: "atoll-blk", kind: Kind::Ours(&[]) },
    Server { name: "atoll-blk --poll-us=0", kind: Kind::Ours(&["--poll-us=0"]) },
    Server { name: "atoll-blk --aio=threads", kind: Kind::Ours(&["--aio=threads"]) },
    Server { name: PEER, kind: Kind::Qemu("io_uring", None) },
    Server { name: "qemu-storage-daemon threads", kind: Kind::Qemu("threads", None) },
    Server {
        name: "qemu-storage-daemon iothread polls",
        kind: Kind::Qemu("io_uring", Some("iothread,id=thread,poll-max-ns=32768")),
    },
];

/// By how long a queue is looked at before its thread goes to sleep.
pub(super) const WINDOWS: &[Server] = &[
    Server { name: PEER, kind: Kind::Qemu("io_uring", None) },
    Server { name: "--poll-us=0", kind: Kind::Ours(&["--poll-us=0"]) },
    Server { name: "--poll-us=40", kind: Kind::Ours(&["--poll-us=40"]) },
    Server { name: "--poll-us=100", kind: Kind::Ours(&["--poll-us=100"]) },
    Server { name: "--poll-us=200", kind: Kind::Ours(&["--poll-us=200"]) },
    Server { name: "--poll-us=400", kind: Kind::Ours(&["--poll-us=400"]) },
    Server { name: "--poll-us=1000", kind: Kind::Ours(&["--poll-us=1000"]) },
];

impl Server {
    /// Starts it for `disk` and attaches a driver with so many queues.
    pub(super) fn start(&self, disk: &Disk, queues: u16) -> Result<Served> {
        let scratch = Scratch::new();
        let socket = scratch.join("socket");
        let (path, socket_path) = (disk.path.display(), socket.display());
        let direct = disk.backing == Backing::Direct;
        let mut command = match self.kind {
            Kind::Ours(options) => {
                let mut command = Command::new(program::ours("atoll-blk"));
                command
                    .args([format!("--socket-path={socket_path}"), format!("--blk-file={path}")]);
                command.arg(format!("--num-queues={queues}")).args(options);
                command.args(direct.then_some("--cache=none"));
                command
            }
            Kind::Qemu(aio, iothread) => {
                let mut command = Command::new("qemu-storage-daemon");
                let cache = if direct { "on" } else { "off" };
                command.args(iothread.iter().flat_map(|thread| ["--object", thread]));
                let thread = if iothread.is_some() { ",iothread=thread" } else { "" };
                command.arg("--blockdev").arg(format!(
                    "driver=file,node-name=disk,filename={path},aio={aio},cache.direct={cache},\
                     discard=unmap"
                ));
                command.arg("--export").arg(format!(
                    "type=vhost-user-blk,id=export,node-name=disk,writable=on,addr.type=unix,\
                     addr.path={socket_path},num-queues={queues}{thread}"
                ));
                command
            }
        };
        let process = Process::run(command.stdin(Stdio::null()).stdout(Stdio::null()))
            .with_context(|| format!("cannot start {}", self.name))?;
        let memory = Memory::new(256 << 20)?;
        let mut front_end = FrontEnd::connect(&socket, memory.clone())?;
        front_end.negotiate(VERSION_1 | EVENT_IDX | INDIRECT_DESC | 1 << 9 | 1 << 12)?;
        let start = |index| front_end.start_queue(index, QUEUE);
        let queues = (0..usize::from(queues)).map(start).collect::<Result<_, _>>()?;
        Ok(Served { process, memory, queues, _front_end: front_end, _scratch: scratch })
    }
}

/// A server with its driver.
pub(super) struct Served {
    pub(super) process: Process,
    memory: Memory,
    queues: Vec<Queue>,
    _front_end: FrontEnd,
    _scratch: Scratch,
}

impl Served {
    /// Does the cell's work once, each queue on a thread of its own.
    pub(super) fn run(&mut self, cell: &Cell) -> Result<Figures> {
        let memory = self.memory.clone();
        let queues = self.queues.iter_mut().take(cell.queues.into());
        let mut lanes =
            queues.map(|queue| Lane::new(queue, &memory, *cell)).collect::<Result<Vec<_>>>()?;
        all(&mut lanes, WARM_UP)?;
        let (cpu, start) = (cpu::nanoseconds(self.process.id())?, Instant::now());
        let times = all(&mut lanes, RUN)?;
        let (elapsed, cpu) = (start.elapsed(), cpu::nanoseconds(self.process.id())? - cpu);
        let count = times.len() as f64;
        let (p50, p99) = percentiles(times);
        Ok(Figures { rate: count / elapsed.as_secs_f64(), p50, p99, cpu: cpu / count })
    }
}

/// Runs the lanes at once.
fn all(lanes: &mut [Lane<'_>], time: Duration) -> Result<Vec<u32>> {
    thread::scope(|scope| {
        let threads: Vec<_> =
            lanes.iter_mut().map(|lane| scope.spawn(move || lane.run(time))).collect();
        let mut times = Vec::new();
        for thread in threads {
            let run = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            times.extend(run?);
        }
        Ok(times)
    })
}
