//! The process dies in the middle of work and another takes over: each request is done, and none
//! is answered twice.

use std::time::Duration;

use atoll_driver::{BlkRequest, Memory, Survivor, TIMEOUT};
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
        std::thread::sleep(Duration::from_micros(death * 37 % 500));
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
