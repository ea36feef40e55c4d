//! The process dies in the middle of work and another takes over: each request is done, and none
//! is answered twice.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use atoll_driver::{BlkRequest, Memory, Process, Survivor, TIMEOUT};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;

use crate::disk::{Driver, FLUSH, Image, SECTORS, USUAL};

const QUEUE_SIZE: u16 = 128;
const BLOCK: usize = 16 << 10;
const BLOCKS: u64 = SECTORS * 512 / BLOCK as u64;

#[test]
fn kill_under_load_loses_and_repeats_nothing() {
    kill_under_load(&[]);
}

#[test]
fn kill_with_transfers_in_the_kernel_loses_and_repeats_nothing() {
    kill_under_load(&["--cache=none", "--aio=io_uring"]);
}

#[test]
fn kill_with_threads_at_work_loses_and_repeats_nothing() {
    kill_under_load(&["--aio=threads"]);
}

fn kill_under_load(options: &[&str]) {
    let image = Image::new();
    let memory = Memory::new(64 << 20).unwrap();
    let mut survivor = Survivor::new(memory.clone(), QUEUE_SIZE, USUAL | FLUSH).unwrap();
    let mut process = image.serve(options);
    let mut device = survivor.attach(image.socket()).unwrap();
    let slots: Vec<_> =
        (0..32).map(|_| BlkRequest::write(&memory, 0, &[0; BLOCK]).unwrap()).collect();
    // By head, the slot that is in flight there and the block and byte it writes.
    let mut in_flight = std::collections::HashMap::new();
    let mut free: Vec<usize> = (0..slots.len()).collect();
    let mut expected = vec![None; BLOCKS as usize];
    let mut written = 0u64;

    for death in 0..25u64 {
        // As much work as fits at once; the process dies at another point of it each time.
        for refill in 0..4 {
            let queue = &mut survivor.queue;
            while let Some(slot) = free.pop() {
                let request = &slots[slot];
                // What is in flight is done in any order.
                while in_flight.values().any(|&(_, block, _)| block == written % BLOCKS) {
                    written += 1;
                }
                let (block, byte) = (written % BLOCKS, (written % 255) as u8);
                let sector = block * (BLOCK as u64 / 512);
                memory.write(request.header + 8, &sector.to_le_bytes()).unwrap();
                memory.write(request.data[0].addr, &[byte; BLOCK]).unwrap();
                memory.write(request.status, &[BlkRequest::PENDING]).unwrap();
                let head = queue.add(&request.buffers()).unwrap();
                in_flight.insert(head, (slot, block, byte));
                written += 1;
            }
            queue.publish().unwrap();
            let at_least = if refill == 3 { death as usize % 16 } else { slots.len() };
            for _ in 0..at_least.min(in_flight.len()) {
                let used = queue.wait(TIMEOUT).unwrap();
                let (slot, block, byte) = in_flight.remove(&used.head).unwrap();
                let status = slots[slot].status(&memory).unwrap();
                assert_eq!(status, BlkRequest::OK);
                expected[block as usize] = Some(byte);
                free.push(slot);
            }
        }
        thread::sleep(Duration::from_micros(death * 37 % 500));
        process.signal(Signal::SIGKILL).unwrap();
        process.wait().unwrap();
        drop(device);
        process = image.serve(options);
        device = survivor.attach(image.socket()).unwrap();
    }

    // `Queue` refuses a chain that is used twice; what is left here must all come.
    let queue = &mut survivor.queue;
    while !in_flight.is_empty() {
        let used = queue.wait(TIMEOUT).unwrap();
        let (slot, block, byte) = in_flight.remove(&used.head).unwrap();
        assert_eq!(slots[slot].status(&memory).unwrap(), BlkRequest::OK);
        expected[block as usize] = Some(byte);
    }
    for (block, byte) in expected.into_iter().enumerate() {
        if let Some(byte) = byte {
            let sector = block as u64 * (BLOCK as u64 / 512);
            assert!(image.read(sector, BLOCK).iter().all(|&found| found == byte), "{block}");
        }
    }
    let queue = survivor.queue;
    assert_eq!(queue.outstanding(), 0);
    let (status, _) = BlkRequest::read(&memory, 0, 512)
        .map(|request| {
            let mut driver = Driver { device, queue };
            driver.request(&request)
        })
        .unwrap();
    assert_eq!(status, BlkRequest::OK);
}

/// The byte of an image that a process locks while it reads into the memory of this guest.
fn mark(kind: libc::c_int, survivor: &Survivor) -> libc::flock {
    let record = survivor.record().unwrap().metadata().unwrap();
    let name = record.dev().rotate_left(32) ^ record.ino();
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: (1 << 62 | (name % (1 << 62))) as i64,
        l_len: 1,
        l_pid: 0,
    }
}

#[test]
fn a_reader_waits_for_what_its_predecessor_has_in_flight() {
    let image = Image::new();
    let memory = Memory::new(16 << 20).unwrap();
    let mut survivor = Survivor::new(memory.clone(), QUEUE_SIZE, USUAL).unwrap();
    let options = ["--read-only", "--cache=none", "--aio=io_uring"];
    let mut process = image.serve(&options);
    let device = survivor.attach(image.socket()).unwrap();
    let left = File::open(image.path()).unwrap();
    let marked = || {
        let mut lock = mark(libc::F_WRLCK, &survivor);
        fcntl(&left, FcntlArg::F_OFD_GETLK(&mut lock)).unwrap();
        libc::c_int::from(lock.l_type) != libc::F_UNLCK
    };
    assert!(marked());
    process.signal(Signal::SIGKILL).unwrap();
    process.wait().unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while marked() {
        assert!(Instant::now() < deadline, "a dead process has its mark still");
        thread::sleep(Duration::from_millis(1));
    }
    drop(device);
    // Somebody else's file of the image stands for the dead process's, which the kernel still uses.
    fcntl(&left, FcntlArg::F_OFD_SETLK(&mark(libc::F_RDLCK, &survivor))).unwrap();
    let request = BlkRequest::read(&memory, 7, 512).unwrap();
    let head = survivor.queue.submit(&request.buffers()).unwrap();
    let mut command = std::process::Command::new(crate::disk::PROGRAM);
    command.args(image.args()).args(options).env("RUST_LOG", "info");
    let process = Process::run(command.stdin(std::process::Stdio::null())).unwrap();
    let _device = thread::scope(|scope| {
        let attached = scope.spawn(|| survivor.attach(image.socket()).unwrap());
        process.wait_for_log("waiting for what was in flight").unwrap();
        assert_eq!(request.status(&memory).unwrap(), BlkRequest::PENDING);
        drop(left);
        attached.join().unwrap()
    });
    assert_eq!(survivor.queue.wait(TIMEOUT).unwrap().head, head);
    assert_eq!(request.status(&memory).unwrap(), BlkRequest::OK);
}
