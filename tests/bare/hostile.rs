//! Backends that turn on the VMM: in the first handshake, when they come back, and while their rings
//! run. Whatever they do costs them their device and nobody else anything.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use atoll_tests::fake_backend::{
    Conduct, Disk, FakeBackend, GET_VRING_BASE, REPLY, Running, SET_FEATURES, Wrong, frame, push,
    say,
};
use atoll_tests::peer::{GET_CONFIG, GET_FEATURES};
use atoll_tests::require;
use atoll_tests::requirement::Requirement::AnyKvm;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};

use crate::rig::{Footprint, Rig};

/// Requests on a backend's own channel: one that is served, and one that nobody knows.
const CONFIG_CHANGED: u32 = 2;
const UNKNOWN: u32 = 99;
/// A request's flags: version 1, and that it wants a reply.
const PLAIN: u32 = 1;
const NEED_REPLY: u32 = 1 | 8;
/// Devices at a time, which is how many deadlines pass at a time.
const MANY: usize = 20;

#[test]
fn whatever_a_backend_replies_wrongly_at_the_start_is_one_sentence() {
    require!(AnyKvm);
    let replies = replies_until_the_rings_run();
    let cases: Vec<_> = Wrong::ALL.iter().map(|wrong| (*wrong, 0)).collect();
    let closes = (1..replies.unstarted).map(|at| (Wrong::Close, at));
    let cases: Vec<_> = cases.into_iter().chain(closes).collect();
    for cases in cases.chunks(MANY) {
        let runs: Vec<_> = cases
            .iter()
            .map(|&(wrong, at)| {
                let backend = FakeBackend::new();
                backend.next(Conduct::Instead(at, wrong));
                let rig = Rig::start(&[backend.socket()], "");
                (wrong, at, backend, rig)
            })
            .collect();
        for (wrong, at, backend, mut rig) in runs {
            let case = format!("{wrong:?} instead of reply {at}");
            if takes_no_harm(wrong, at) {
                continue;
            }
            let finished = rig.vmm.wait();
            let log = &finished.stderr;
            assert_eq!(finished.code, 1, "{case}: {log}");
            let socket = backend.socket().display().to_string();
            let sentences = log.lines().filter(|line| line.starts_with("atoll: "));
            let named = sentences.filter(|l| l.contains("disk1") && l.contains(&socket)).count();
            assert_eq!(named, 1, "{case}: {log}");
        }
    }
}

/// GET_FEATURES is the first request, and any 64 bits are an answer to it: what comes of them is
/// another test's.
fn takes_no_harm(wrong: Wrong, at: usize) -> bool {
    wrong == Wrong::Ones && at == 0
}

/// How many replies there are in a handshake.
struct Replies {
    /// Before the guest starts.
    unstarted: usize,
    /// When a backend comes back, until the rings run.
    again: usize,
}

fn replies_until_the_rings_run() -> Replies {
    let backend = FakeBackend::new();
    let (at_start, first) = channel();
    backend.next(Conduct::Once(Box::new(move |_| at_start.send(()).expect("the test waits"))));
    let rig = Rig::start(&[backend.socket()], "");
    first.recv().expect("the rings run");
    let first = backend.counts().replied;
    let both = backend.wait_until("the rings to run again", |counts| counts.starts == 2).replied;
    rig.stop();
    let unstarted = first.iter().position(|request| *request == SET_FEATURES);
    Replies { unstarted: unstarted.expect("features"), again: both.len() - first.len() }
}

#[test]
fn whatever_a_backend_that_comes_back_replies_wrongly_only_puts_off_its_return() {
    require!(AnyKvm);
    let replies = replies_until_the_rings_run().again;
    let ends = (0..replies).map(|at| (Wrong::Close, at));
    let places = [0, replies / 2];
    let wrongs = Wrong::ALL.iter().flat_map(|wrong| places.map(|at| (*wrong, at)));
    let cases: Vec<_> = ends.chain(wrongs).collect();

    let backends: Vec<_> = (0..MANY).map(|_| FakeBackend::new()).collect();
    let mut shares = vec![Vec::new(); MANY];
    for (case, at) in cases.into_iter().zip((0..MANY).cycle()) {
        shares[at].push(case);
    }
    let mut gates = Vec::new();
    for (backend, share) in backends.iter().zip(&shares) {
        let (gate, gone) = channel::<()>();
        gates.push(gate);
        backend.next(Conduct::Once(Box::new(move |_| {
            let _everybody_is_ready = gone.recv();
        })));
        for (wrong, at) in share {
            backend.next(Conduct::Instead(*at, *wrong));
            backend.next(Conduct::Once(Box::new(|_| {})));
        }
    }
    let sockets: Vec<_> = backends.iter().map(FakeBackend::socket).collect();
    let mut rig = Rig::start(&sockets, "");
    backends.iter().for_each(|backend| drop(backend.wait_until("the rings", |c| c.starts == 1)));
    let before = rig.footprint();
    drop(gates);
    for ((backend, share), number) in backends.iter().zip(&shares).zip(1..) {
        let rounds = share.len();
        backend.wait_until(&format!("the return of disk{number} after {share:?}"), |counts| {
            counts.starts >= rounds + 2
        });
        rig.check_witness();
        let lines = rig.lines_about(&format!("disk{number} "));
        let socket = backend.socket().display().to_string();
        let named = lines.iter().filter(|line| line.contains(&socket)).count();
        assert!(named >= rounds, "{named} lines for {share:?}: {lines:#?}");
        assert!(lines.len() <= 8 * rounds + 8, "a full log: {lines:#?}");
    }
    assert_no_growth(before, rig.footprint());
    rig.stop();
}

#[test]
fn a_disk_that_comes_back_as_another_is_named_and_not_taken() {
    require!(AnyKvm);
    let plain = Disk::default;
    let mut others = vec![
        ("fewer features", Disk { features: 0, ..plain() }),
        ("no queues", Disk { queues: 0, ..plain() }),
        ("no configuration space", Disk { protocol: plain().protocol & !(1 << 9), ..plain() }),
    ];
    let backends: Vec<_> = others.iter().map(|_| FakeBackend::new()).collect();
    for (backend, (_, other)) in backends.iter().zip(&mut others) {
        backend.next(Conduct::Once(Box::new(|_| {})));
        backend.next(Conduct::As(other.clone()));
    }
    let sockets: Vec<_> = backends.iter().map(FakeBackend::socket).collect();
    let mut rig = Rig::start(&sockets, "");
    for ((backend, (what, _)), number) in backends.iter().zip(&others).zip(1..) {
        // What comes third is the right one again.
        let counts = backend.wait_until(what, |counts| counts.starts == 2);
        assert!(counts.connections >= 3, "{what}: {counts:?}");
        let socket = backend.socket().display().to_string();
        let lines = rig.lines_about(&format!("disk{number} "));
        assert!(lines.iter().any(|line| line.contains(&socket)), "{what}: {lines:#?}");
    }
    rig.check_witness();
    rig.stop();
}

#[test]
fn insane_counts_of_queues_are_refused_or_cut_to_what_there_can_be() {
    require!(AnyKvm);
    for queues in [0, 1 << 16, 1 << 32, u64::MAX] {
        let backend = FakeBackend::new();
        backend.next(Conduct::As(Disk { queues, ..Disk::default() }));
        let mut rig = Rig::start(&[backend.socket()], "");
        if queues == 0 {
            let finished = rig.vmm.wait();
            assert_eq!(finished.code, 1, "{}", finished.stderr);
            assert!(finished.stderr.contains("disk1"), "{}", finished.stderr);
        } else {
            backend.wait_until("the rings to run", |counts| counts.starts == 1);
            rig.check_witness();
            rig.stop();
        }
    }
}

/// Something to do when the rings run; the connection ends with it.
type Abuse = fn(&mut Running);

const ABUSES: [(&str, Abuse); 18] = [
    ("goes", |_| {}),
    ("replies to nothing", |backend| {
        say(&backend.wire, [GET_FEATURES, REPLY], &[0; 8], &[]);
        backend.sulk();
    }),
    ("replies to nothing, a thousand times", |backend| {
        (0..1000).for_each(|_| say(&backend.wire, [GET_VRING_BASE, REPLY], &[0; 8], &[]));
        backend.sulk();
    }),
    ("asks on the wrong channel", |backend| {
        say(&backend.wire, [CONFIG_CHANGED, NEED_REPLY], &[], &[]);
        backend.sulk();
    }),
    ("sends half a message", |backend| {
        push(backend.wire.stream(), &[0; 5]);
        backend.sulk();
    }),
    ("sends garbage", |backend| {
        push(backend.wire.stream(), &[0xff; 64]);
        backend.sulk();
    }),
    ("sends descriptors to nobody", |backend| {
        (0..100).for_each(|_| say(&backend.wire, [GET_FEATURES, REPLY], &[0; 8], &[2; 253]));
        backend.sulk();
    }),
    ("sends without end", |backend| {
        let megabyte = vec![0x01; 1 << 20];
        while push(backend.wire.stream(), &megabyte) {}
    }),
    ("asks for what nobody knows, without end", |backend| {
        flood(backend, &frame([UNKNOWN, NEED_REPLY], 8, &[0; 8]), 20_000);
    }),
    ("asks for what nobody knows and wants no reply", |backend| {
        flood(backend, &frame([UNKNOWN, PLAIN], 0, &[]), 20_000);
    }),
    ("sends descriptors with what nobody knows", |backend| {
        let Some(back) = &backend.back else { return };
        (0..200).for_each(|_| say(back, [UNKNOWN, PLAIN], &[0; 8], &[2; 253]));
    }),
    ("asks for half of something", |backend| {
        let Some(back) = &backend.back else { return };
        push(back.stream(), &[0; 7]);
        std::thread::sleep(Duration::from_secs(2));
    }),
    ("asks for something of 4 GiB", |backend| {
        flood(backend, &frame([UNKNOWN, PLAIN], 0xffff_ffff, &[]), 1);
        std::thread::sleep(Duration::from_secs(2));
    }),
    ("sends replies on its own channel", |backend| {
        flood(backend, &frame([CONFIG_CHANGED, REPLY], 8, &[0; 8]), 1000);
    }),
    ("closes its own channel", |backend| {
        backend.back = None;
        say_bye_after(backend, Duration::from_millis(200));
    }),
    ("changes its configuration without end", |backend| {
        let Some(back) = backend.back.take() else { return };
        let main = backend.wire.stream().try_clone().expect("one more descriptor");
        let changes = std::thread::spawn(move || {
            let change = frame([CONFIG_CHANGED, PLAIN], 0, &[]);
            let _all = (0..5000).all(|_| push(back.stream(), &change));
            main.shutdown(std::net::Shutdown::Both).expect("end the connection");
        });
        backend.serve();
        changes.join().expect("a thread that writes");
    }),
    ("changes its configuration to one of another length", |backend| {
        let Some(back) = backend.back.take() else { return };
        say(&back, [CONFIG_CHANGED, PLAIN], &[], &[]);
        while let Ok(Some(message)) = backend.wire.receive() {
            if message.request == GET_CONFIG {
                say(&backend.wire, [GET_CONFIG, REPLY], &[0; 13], &[]);
            }
        }
    }),
    ("calls and gives up without end", |backend| {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(500) {
            for event in &backend.events {
                let _full = nix::unistd::write(event, &1_u64.to_ne_bytes());
            }
        }
    }),
];

/// Sends `message` many times on the backend's own channel and reads no answers.
fn flood(backend: &Running, message: &[u8], times: usize) {
    let Some(back) = &backend.back else { return };
    let _all = (0..times).all(|_| push(back.stream(), message));
}

fn say_bye_after(backend: &Running, delay: Duration) {
    std::thread::sleep(delay);
    let _gone = backend.wire.stream().shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_backend_that_turns_on_the_vmm_loses_its_device_and_nobody_else_notices() {
    require!(AnyKvm);
    let backends: Vec<_> = ABUSES.iter().map(|_| FakeBackend::new()).collect();
    let sockets: Vec<_> = backends.iter().map(FakeBackend::socket).collect();
    // Twice: what the first time costs may be spent once, what leaks is lost every time.
    let rounds = [(); 2].map(|()| {
        let rounds = backends.iter().zip(ABUSES).map(|(backend, (_, abuse))| {
            let (go, gone) = channel::<()>();
            backend.next(Conduct::Once(Box::new(move |backend| {
                let _everybody_is_ready = gone.recv();
                abuse(backend);
            })));
            go
        });
        rounds.collect::<Vec<_>>()
    });
    let mut rig = Rig::start(&sockets, "");
    backends.iter().for_each(|backend| drop(backend.wait_until("the rings", |c| c.starts == 1)));
    let mut footprints = vec![rig.footprint()];
    for (go, round) in rounds.into_iter().zip(1..) {
        drop(go);
        for ((backend, (what, _)), number) in backends.iter().zip(ABUSES).zip(1..) {
            let what = format!("the return of disk{number} after it {what}");
            backend.wait_until(&what, |counts| counts.starts == 1 + round);
            let lines = rig.lines_about(&format!("disk{number} "));
            let socket = backend.socket().display().to_string();
            let named = lines.iter().filter(|line| line.contains(&socket)).count();
            assert!(named >= round, "{what}: {lines:#?}");
            assert!(lines.len() <= 12 * round, "{what}: a full log: {lines:#?}");
        }
        rig.check_witness();
        footprints.push(rig.footprint());
    }
    assert_no_growth(footprints[0], footprints[2]);
    assert_eq!(footprints[1].files, footprints[2].files, "a leak each time: {footprints:?}");
    rig.stop();
}

/// Descriptors and threads are as they were, and what was allocated fits into a few buffers.
#[track_caller]
fn assert_no_growth(before: Footprint, after: Footprint) {
    assert_eq!(after.threads, before.threads, "threads");
    assert!(after.files <= before.files + 8, "descriptors: {before:?}, {after:?}");
    assert!(after.memory_kib <= before.memory_kib + 2048, "memory: {before:?}, {after:?}");
}

#[test]
fn a_backend_can_neither_cut_nor_grow_the_guest_s_memory() {
    require!(AnyKvm);
    let backend = FakeBackend::new();
    let (told, results) = channel();
    backend.next(Conduct::Once(Box::new(move |backend| {
        let memory = backend.memory.first().expect("the guest's memory");
        told.send(tamper(memory)).expect("the test waits");
        backend.serve();
    })));
    let mut rig = Rig::start(&[backend.socket()], "");
    let results = results.recv_timeout(atoll_tests::PATIENCE).expect("the rings run");
    for (what, result) in results {
        assert_eq!(result, Err(Errno::EPERM), "{what}");
    }
    rig.check_witness();
    rig.stop();
}

fn tamper(memory: &OwnedFd) -> Vec<(&'static str, Result<(), Errno>)> {
    let seal = |seal| fcntl(memory.as_fd(), FcntlArg::F_ADD_SEALS(seal)).map(drop);
    vec![
        ("to nothing", nix::unistd::ftruncate(memory, 0)),
        ("to a page", nix::unistd::ftruncate(memory, 4096)),
        ("to 1 TiB", nix::unistd::ftruncate(memory, 1 << 40)),
        ("sealed against writing", seal(SealFlag::F_SEAL_FUTURE_WRITE)),
    ]
}

#[test]
fn a_backend_that_makes_events_block_holds_up_nobody() {
    require!(AnyKvm);
    let backend = FakeBackend::new();
    backend.next(Conduct::Once(Box::new(|backend| {
        let files: Vec<_> =
            std::mem::take(&mut backend.events).into_iter().map(File::from).collect();
        for mut file in &files {
            // The flags belong to the open file, which the VMM has too.
            fcntl(file, FcntlArg::F_SETFL(OFlag::empty())).expect("make an event block");
            // Full; one that was signalled already takes no more.
            fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("not this time");
            let _signalled = file.read(&mut [0; 8]);
            file.write_all(&(u64::MAX - 1).to_ne_bytes()).expect("fill an event");
            fcntl(file, FcntlArg::F_SETFL(OFlag::empty())).expect("make an event block");
        }
        say_bye_after(backend, Duration::from_millis(200));
    })));
    let mut rig = Rig::start(&[backend.socket()], "");
    backend.wait_until("the end of the first connection", |counts| counts.ends == 1);
    rig.check_witness();
    backend.wait_until("the rings to run again", |counts| counts.starts == 2);
    rig.check_witness();
    rig.stop();
}

#[test]
fn a_backend_that_never_reads_holds_up_nobody_s_end() {
    require!(AnyKvm);
    let backend = FakeBackend::new();
    let (told, running) = channel();
    backend.next(Conduct::Once(Box::new(move |backend| {
        told.send(()).expect("the test waits");
        // Nothing is read, not even that the front-end wants its rings back.
        say_bye_after(backend, Duration::from_secs(60));
    })));
    let mut rig = Rig::start(&[backend.socket()], "");
    running.recv_timeout(atoll_tests::PATIENCE).expect("the rings run");
    rig.check_witness();
    rig.stop();
}
