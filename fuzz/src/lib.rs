//! The devices whose requests are fuzzed. What is common to all is in the crates themselves.

use std::fs::File;
use std::path::PathBuf;
use std::sync::OnceLock;

use atoll_backend::{ConfigChange, Device, fuzz};
use atoll_blk::Block;
use atoll_console::Console;

/// Small, so that many a sector number is within it.
const DISK: u64 = 64 * 512;

/// Requests to a disk: a ring, and memory with the requests in it.
pub fn blk(data: &[u8]) {
    static DEVICE: OnceLock<Block> = OnceLock::new();
    let device = DEVICE.get_or_init(|| {
        let path = scratch("disk");
        File::create(&path).and_then(|file| file.set_len(DISK)).expect("a disk image");
        let options = atoll_blk::Options {
            blk_file: Some(path),
            read_only: false,
            takeover: false,
            format: None,
            backing_dir: Vec::new(),
            snapshot: false,
            serial: Some("FUZZ".into()),
            num_queues: 1,
            limits: Default::default(),
            cache: Default::default(),
            logical_block_size: None,
            physical_block_size: None,
            min_io_size: None,
            opt_io_size: None,
            aio: Default::default(),
            poll_us: 0,
            on_enospc: Default::default(),
            backend: Default::default(),
        };
        Block::open(&options, ConfigChange::default()).expect("a disk")
    });
    fuzz::serve_queue(data, device, 0);
}

/// A file that is said to be a disk image in qcow2.
pub fn image(data: &[u8]) {
    let path = scratch("image");
    std::fs::write(&path, data).expect("a file in memory");
    atoll_blk::fuzz::image(&path);
}

/// Buffers for keys and output of a console: the first byte says of which queue.
pub fn console(data: &[u8]) {
    static DEVICE: OnceLock<Console> = OnceLock::new();
    let device = DEVICE.get_or_init(|| {
        let options = atoll_console::Options {
            backend: Default::default(),
            stdio: false,
            pty: None,
            unix: None,
            file: Some("/dev/null".into()),
            replay: false,
            port: vec!["agent:file=/dev/null".parse().expect("a port")],
        };
        let console = Console::open(&options, ConfigChange::default()).expect("a console");
        console.start().expect("a thread");
        console
    });
    if let Some((queue, data)) = data.split_first() {
        fuzz::serve_queue(data, device, u16::from(queue % 6));
        device.reset();
    }
}

/// A path of this process's own, in memory.
fn scratch(name: &str) -> PathBuf {
    format!("/dev/shm/atoll-fuzz.{}.{name}", std::process::id()).into()
}
