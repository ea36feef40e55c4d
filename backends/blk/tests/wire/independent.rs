//! The same process under an independent driver: the crate `virtio-driver`.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use virtio_driver::{VhostUser, VirtioBlkQueue, VirtioBlkTransport, VirtioFeatureFlags};
use vm_memory::{FileOffset, MmapRegion};

use crate::disk::{Image, SECTOR, SECTORS, sector_byte};

const BUFFER: usize = 64 << 10;
/// VIRTIO_BLK_F_MQ, which the crate keeps to itself.
const MQ: u64 = 1 << 12;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Memory that the device may reach, of [`BUFFER`] bytes.
struct Shared {
    file: File,
    region: MmapRegion<()>,
}

impl Shared {
    fn new() -> Self {
        let file = File::from(memfd_create(c"buffer", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(BUFFER as u64).unwrap();
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        Self { file, region: MmapRegion::from_file(offset, BUFFER).unwrap() }
    }

    fn bytes(&mut self, offset: usize, len: usize) -> &mut [u8] {
        assert!(offset + len <= BUFFER);
        // SAFETY: within the mapping, which lives as long as `self`.
        let start = unsafe { self.region.as_ptr().add(offset) };
        // SAFETY: `self` is borrowed mutably, and the device is idle whenever the tests look.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

fn connect(image: &Image) -> Box<VirtioBlkTransport> {
    let deadline = Instant::now() + TIMEOUT;
    let features = VirtioFeatureFlags::VERSION_1
        | VirtioFeatureFlags::RING_EVENT_IDX
        | VirtioFeatureFlags::RING_INDIRECT_DESC;
    let socket = image.socket().display().to_string();
    loop {
        // The socket is there a moment before anybody listens.
        match VhostUser::new(&socket, features.bits() | MQ) {
            Ok(transport) => return Box::new(transport),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kicks the queue and waits for so many completions, each of which must be a success.
fn complete(
    transport: &VirtioBlkTransport,
    index: usize,
    queue: &mut VirtioBlkQueue<'_, usize>,
    count: usize,
) -> Vec<usize> {
    transport.get_submission_notifier(index).notify().unwrap();
    let call = transport.get_completion_fd(index);
    let mut done = Vec::new();
    let deadline = Instant::now() + TIMEOUT;
    while done.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} completed", done.len());
        let mut fds = [PollFd::new(call.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(100u8)).unwrap() > 0 {
            call.read().unwrap();
        }
        for completion in queue.completions() {
            assert_eq!(completion.ret, 0);
            done.push(completion.context);
        }
    }
    done
}

#[test]
fn virtio_driver_reads_writes_and_flushes_on_each_queue() {
    let image = Image::new();
    let _process = image.serve(&["--num-queues=2"]);
    let mut transport = connect(&image);
    assert_eq!(u64::from(transport.get_config().unwrap().capacity), SECTORS);
    let mut queues = VirtioBlkQueue::setup_queues(transport.as_mut(), 2, 64).unwrap();
    let mut shared = Shared::new();
    let (start, fd) = (shared.region.as_ptr() as usize, shared.file.as_raw_fd());
    transport.map_mem_region(start, BUFFER, fd, 0).unwrap();

    for (index, queue) in queues.iter_mut().enumerate() {
        let first = index as u64 * 100;
        // As many reads at once as there is room for.
        for n in 0..16 {
            let buffer = shared.bytes(n * SECTOR, SECTOR);
            queue.read((first + n as u64) * SECTOR as u64, buffer, n).unwrap();
        }
        let mut done = complete(transport.as_ref(), index, queue, 16);
        done.sort_unstable();
        assert_eq!(done, (0..16).collect::<Vec<_>>());
        for n in 0..16 {
            assert_eq!(shared.bytes(n * SECTOR, SECTOR), [sector_byte(first + n as u64); SECTOR]);
        }

        let offset = first * SECTOR as u64;
        shared.bytes(0, 4096).fill(0xe0 + index as u8);
        queue.write(offset, shared.bytes(0, 4096), 1).unwrap();
        complete(transport.as_ref(), index, queue, 1);
        queue.flush(2).unwrap();
        assert_eq!(complete(transport.as_ref(), index, queue, 1), [2]);
        assert_eq!(image.read(first, 4096), [0xe0 + index as u8; 4096]);
    }
}
