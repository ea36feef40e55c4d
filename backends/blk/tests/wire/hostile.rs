//! Drivers and front-ends that break the rules: their request fails, or their ring, or their
//! connection; the process serves on.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use atoll_driver::{
    BlkRequest, Buffer, DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, FrontEnd, HostileChain,
    Memory, PROTOCOL_FEATURES, Process, Queue, TIMEOUT, VERSION_1, Wire,
};

use crate::disk::{ALL_FEATURES, Driver, FLUSH, Image};

const OUTSIDE: u64 = 1 << 40;

/// Makes descriptors available as they stand, from the first on. Returns the used length.
fn submit_raw(driver: &mut Driver, descriptors: &[Descriptor]) -> u32 {
    driver.queue.submit_raw(descriptors).unwrap();
    driver.queue.wait(TIMEOUT).unwrap().len
}

fn next(buffer: Buffer, next: u16) -> Descriptor {
    let flags = DESC_NEXT | if buffer.writable { DESC_WRITE } else { 0 };
    Descriptor { addr: buffer.addr, len: buffer.len, flags, next }
}

fn last(buffer: Buffer) -> Descriptor {
    let flags = if buffer.writable { DESC_WRITE } else { 0 };
    Descriptor { addr: buffer.addr, len: buffer.len, flags, next: 0 }
}

fn serve_and_attach() -> (Image, Process, Driver) {
    let image = Image::new();
    let process = image.serve(&[]);
    let driver = Driver::attach(&image);
    (image, process, driver)
}

#[test]
fn hostile_chains_come_back() {
    let (_image, mut process, mut driver) = serve_and_attach();
    for chain in HostileChain::all(&driver.memory(), driver.queue.ring()).unwrap() {
        driver.queue.submit_raw(&chain.descriptors).unwrap();
        let used = driver.queue.wait(TIMEOUT);
        assert_eq!(used.map(|used| used.len).unwrap_or(1), 0, "{}", chain.name);
    }
    driver.assert_serves();
    let (_, stderr) = process.terminate().unwrap();
    assert_eq!(stderr, "", "a driver cannot fill the log");
}

#[test]
fn a_looped_chain_fails_and_the_next_is_served() {
    let (_image, _process, mut driver) = serve_and_attach();
    let request = BlkRequest::read(driver.device.memory(), 0, 512).unwrap();
    let header = Buffer::readable(request.header, 16);
    let used = submit_raw(&mut driver, &[next(header, 1), next(request.data[0], 1)]);
    assert_eq!(used, 0);
    driver.assert_serves();
}

#[test]
fn a_next_outside_the_table_fails_the_request() {
    let (_image, _process, mut driver) = serve_and_attach();
    let request = BlkRequest::read(driver.device.memory(), 0, 512).unwrap();
    let used = submit_raw(&mut driver, &[next(Buffer::readable(request.header, 16), 128)]);
    assert_eq!(used, 0);
    driver.assert_serves();
}

#[test]
fn data_outside_memory_fails_the_request_with_a_status() {
    let (_image, _process, mut driver) = serve_and_attach();
    let memory = driver.memory();
    let ends_outside = memory.end() - 512;
    for at in [OUTSIDE, u64::MAX - 100, ends_outside] {
        let data = vec![Buffer::writable(at, 1024)];
        let request = BlkRequest::new(&memory, BlkRequest::IN, 0, data).unwrap();
        assert_eq!(driver.request(&request), (BlkRequest::IOERR, 0));
    }
    driver.assert_serves();
}

#[test]
fn a_header_outside_memory_fails_the_request_with_a_status() {
    let (_image, _process, mut driver) = serve_and_attach();
    let mut request = BlkRequest::read(driver.device.memory(), 0, 512).unwrap();
    request.header = OUTSIDE;
    assert_eq!(driver.request(&request), (BlkRequest::IOERR, 0));
    driver.assert_serves();
}

#[test]
fn a_request_without_room_for_a_status_is_returned_unanswered() {
    let (_image, _process, mut driver) = serve_and_attach();
    let request = BlkRequest::read(driver.device.memory(), 0, 512).unwrap();
    let header = Buffer::readable(request.header, 16);
    assert_eq!(driver.submit(&[header]).len, 0);
    assert_eq!(driver.submit(&[header, Buffer::writable(request.status, 0)]).len, 0);
    assert_eq!(driver.submit(&[header, Buffer::writable(OUTSIDE, 1)]).len, 0);
    driver.assert_serves();
}

#[test]
fn a_request_with_a_short_header_fails_with_a_status() {
    let (_image, _process, mut driver) = serve_and_attach();
    let request = BlkRequest::flush(driver.device.memory()).unwrap();
    let status = Buffer::writable(request.status, 1);
    driver.submit(&[Buffer::readable(request.header, 15), status]);
    assert_eq!(request.status(driver.device.memory()).unwrap(), BlkRequest::IOERR);
    let request = BlkRequest::flush(driver.device.memory()).unwrap();
    driver.submit(&[Buffer::writable(request.status, 1)]);
    assert_eq!(request.status(driver.device.memory()).unwrap(), BlkRequest::IOERR);
    driver.assert_serves();
}

#[test]
fn buffers_of_the_wrong_direction_fail_the_request() {
    let (image, _process, mut driver) = serve_and_attach();
    let memory = driver.memory();
    // A write whose data the device may only write is a write of nothing, and a read into what it
    // may only read is a read of nothing; neither touches anything.
    let room = memory.put(&[0xcd; 512]).unwrap();
    for (kind, data) in [
        (BlkRequest::OUT, Buffer::writable(room, 512)),
        (BlkRequest::IN, Buffer::readable(room, 512)),
    ] {
        let request = BlkRequest::new(&memory, kind, 0, vec![data]).unwrap();
        driver.request(&request);
    }
    assert_eq!(image.read(0, 512), [0; 512]);
    assert_eq!(memory.get(room, 512).unwrap(), [0xcd; 512]);

    // What is readable must come first.
    let request = BlkRequest::read(&memory, 0, 512).unwrap();
    let status = Buffer::writable(request.status, 1);
    driver.submit(&[request.data[0], Buffer::readable(request.header, 16), status]);
    assert_eq!(request.status(&memory).unwrap(), BlkRequest::IOERR);
    driver.assert_serves();
}

#[test]
fn zero_length_buffers_are_nothing() {
    let (_image, _process, mut driver) = serve_and_attach();
    let memory = driver.memory();
    let request = BlkRequest::read(&memory, 7, 512).unwrap();
    driver.submit(&[
        Buffer::readable(OUTSIDE, 0),
        Buffer::readable(request.header, 16),
        Buffer::readable(request.header, 0),
        Buffer::writable(request.status, 0),
        request.data[0],
        Buffer::writable(request.status, 1),
        Buffer::writable(0, 0),
    ]);
    assert_eq!(request.status(&memory).unwrap(), BlkRequest::OK);
    assert_eq!(driver.read(0, 0).0, BlkRequest::OK);
    driver.assert_serves();
}

#[test]
fn overlapping_buffers_harm_nobody_but_their_driver() {
    let (_image, _process, mut driver) = serve_and_attach();
    let memory = driver.memory();
    let mut request = BlkRequest::read(&memory, 7, 512).unwrap();
    // Twice into the same place, which holds the header and the status as well.
    let place = request.header - 256;
    request.data = vec![Buffer::writable(place, 512), Buffer::writable(place, 512)];
    driver.submit(&request.buffers());
    // Over the ring itself: the device reads its own ring's bytes as data, and writes them.
    let [_, _, used] = driver.queue.ring().addresses();
    let write = Buffer::readable(used, 512);
    let request = BlkRequest::new(&memory, BlkRequest::OUT, 100, vec![write]).unwrap();
    assert_eq!(driver.request(&request).0, BlkRequest::OK);
    driver.assert_serves();
}

#[test]
fn indirect_tables_of_every_wrong_size_fail_the_request() {
    let (_image, _process, mut driver) = serve_and_attach();
    let request = BlkRequest::read(driver.device.memory(), 0, 512).unwrap();
    let table = [next(Buffer::readable(request.header, 16), 1), last(request.data[0])];
    let addr = driver.queue.ring().write_table(&table).unwrap();
    for len in [0, 1, 15, 17, 31, 16 * 65536, u32::MAX] {
        let indirect = Descriptor { addr, len, flags: DESC_INDIRECT, next: 0 };
        assert_eq!(submit_raw(&mut driver, &[indirect]), 0);
    }
    // Outside of memory; within itself; nested.
    let outside = Descriptor { addr: OUTSIDE, len: 32, flags: DESC_INDIRECT, next: 0 };
    assert_eq!(submit_raw(&mut driver, &[outside]), 0);
    let table = [next(Buffer::readable(request.header, 16), 0)];
    let addr = driver.queue.ring().write_table(&table).unwrap();
    let endless = Descriptor { addr, len: 16, flags: DESC_INDIRECT, next: 0 };
    assert_eq!(submit_raw(&mut driver, &[endless]), 0);
    let addr = driver.queue.ring().write_table(&[endless]).unwrap();
    let nested = Descriptor { addr, ..endless };
    assert_eq!(submit_raw(&mut driver, &[nested]), 0);
    driver.assert_serves();
}

#[test]
fn indirect_descriptors_that_were_not_negotiated_fail_the_request() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach_with(&image, VERSION_1 | FLUSH, 64);
    let request = BlkRequest::read(driver.device.memory(), 0, 512).unwrap();
    driver.queue.add_indirect(&request.buffers()).unwrap();
    driver.queue.publish().unwrap();
    assert_eq!(driver.queue.wait(TIMEOUT).unwrap().len, 0);
    driver.assert_serves();
}

#[test]
fn a_chain_of_more_than_four_gib_fails() {
    let (_image, _process, mut driver) = serve_and_attach();
    let request = BlkRequest::read(driver.device.memory(), 0, 512).unwrap();
    let huge = Buffer::writable(0, u32::MAX);
    let header = Buffer::readable(request.header, 16);
    let chain = [next(header, 1), next(huge, 2), last(huge)];
    assert_eq!(submit_raw(&mut driver, &chain), 0);
    driver.assert_serves();
}

/// Breaks the ring with `break_it`, and sees that this is noticed, said, and harms no other queue.
fn assert_only_this_ring_breaks(break_it: impl FnOnce(&mut Queue)) -> String {
    let image = Image::new();
    let mut process = image.serve(&["--num-queues=2"]);
    let memory = Memory::new(16 << 20).unwrap();
    let mut device = FrontEnd::connect(image.socket(), memory.clone()).unwrap();
    device.negotiate(ALL_FEATURES).unwrap();
    let mut broken = device.start_queue(0, 64).unwrap();
    let queue = device.start_queue(1, 64).unwrap();
    break_it(&mut broken);
    broken.kick().unwrap();
    assert!(broken.wait_broken(TIMEOUT).unwrap(), "the front-end is told");

    // Queue 1 serves on, and so does queue 0 once the driver starts over.
    let request = BlkRequest::read(&memory, 7, 512).unwrap();
    let mut queue = queue;
    queue.submit(&request.buffers()).unwrap();
    queue.wait(TIMEOUT).unwrap();
    assert_eq!(request.status(&memory).unwrap(), BlkRequest::OK);
    device.stop_queue(&broken).unwrap();
    let queue = device.start_queue(0, 64).unwrap();
    Driver { device, queue }.assert_serves();

    let (status, stderr) = process.terminate().unwrap();
    assert!(status.success(), "{stderr}");
    stderr
}

#[test]
fn a_kick_that_blocks_keeps_no_ring_from_stopping() {
    let (image, mut process, mut driver) = serve_and_attach();
    driver.assert_serves();
    driver.queue.make_kick_block().unwrap();
    // Its ring stops and starts again, and again without any kick in between.
    for _ in 0..3 {
        driver.device.set_memory().unwrap();
    }
    driver.assert_serves();
    drop(driver);
    Driver::attach(&image).assert_serves();
    let (status, stderr) = process.terminate().unwrap();
    assert!(status.success(), "{stderr}");
}

#[test]
fn an_available_index_that_jumps_breaks_this_ring_alone() {
    let said = assert_only_this_ring_breaks(|queue| queue.ring().set_avail_index(1000).unwrap());
    assert!(said.contains("vring 0 stopped: the available index went from 0 to 1000"), "{said}");
}

#[test]
fn a_head_outside_the_table_breaks_this_ring_alone() {
    let said = assert_only_this_ring_breaks(|queue| queue.ring().push_head(64).unwrap());
    assert!(said.contains("chain head 64 is outside the descriptor table of 64"), "{said}");
}

#[test]
fn a_ring_outside_memory_does_not_start_and_is_said() {
    let image = Image::new();
    let mut process = image.serve(&[]);
    let memory = Memory::with_regions(&[(0, 1 << 20)]).unwrap();
    let mut device = FrontEnd::connect(image.socket(), memory.clone()).unwrap();
    device.negotiate(ALL_FEATURES).unwrap();
    let queue = device.start_queue(0, 64).unwrap();
    device.stop_queue(&queue).unwrap();
    // The same ring, of which the end is no longer in memory once it is larger.
    device.inner();
    let near_end = memory.end() - 512;
    let end = memory.allocate(1, 1).unwrap();
    memory.allocate(usize::try_from(near_end - end).unwrap() - 4096, 1).unwrap();
    let ring = Queue::new(&memory, 0, 128, device.features()).unwrap();
    let config = vhost::VringConfigData {
        queue_max_size: 1024,
        queue_size: 1024,
        flags: 0,
        desc_table_addr: user(&memory, ring.ring().addresses()[0]),
        avail_ring_addr: user(&memory, ring.ring().addresses()[1]),
        used_ring_addr: user(&memory, ring.ring().addresses()[2]),
        log_addr: None,
    };
    device.attach(&ring, 0).unwrap();
    vhost::VhostBackend::set_vring_num(device.inner(), 0, 1024).unwrap();
    vhost::VhostBackend::set_vring_addr(device.inner(), 0, &config).unwrap();
    assert!(ring.wait_broken(TIMEOUT).unwrap());
    let (status, stderr) = process.terminate().unwrap();
    assert!(status.success());
    assert!(stderr.contains("is not within one region of the guest's memory"), "{stderr}");
}

fn user(memory: &Memory, address: u64) -> u64 {
    let table = memory.table();
    table[0].userspace_addr + address - table[0].guest_phys_addr
}

#[test]
fn garbage_ends_the_connection_and_not_the_process() {
    let image = Image::new();
    let mut process = image.serve(&[]);
    drop(FrontEnd::connect(image.socket(), Memory::new(1 << 20).unwrap()).unwrap());
    let connect = || Wire::over(UnixStream::connect(image.socket()).unwrap()).unwrap();
    let header = |request: u32, size: u32| [request, 1, size];

    // Unknown requests, wrong version, wrong sizes, missing and superfluous descriptors.
    for (header, payload) in [
        (header(0, 0), &[][..]),
        (header(9999, 0), &[]),
        ([1, 2, 0], &[]),
        (header(1, 8), &[0; 8]),
        (header(2, 4), &[0; 4]),
        (header(5, 8), &[0xff; 8]),
        (header(8, 8), &[0xff; 8]),
        (header(11, 8), &[0xff; 8]),
        (header(12, 8), &[0; 8]),
        (header(13, 8), &[0; 8]),
        (header(31, 24), &[0xff; 24]),
        (header(2, u32::MAX), &[]),
        (header(2, 5000), &[0; 5000]),
    ] {
        let wire = connect();
        wire.send_raw(header, payload, &[]).unwrap();
        assert!(wire.receive().ok().flatten().is_none(), "{header:?} was answered");
    }
    // Half a header, half a payload, and gone.
    for half in [&[1u8, 0, 0][..], &[2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1, 2]] {
        let wire = connect();
        std::io::Write::write_all(&mut wire.stream(), half).unwrap();
    }
    Driver::attach(&image).assert_serves();
    let (status, stderr) = process.terminate().unwrap();
    assert!(status.success(), "{stderr}");
}

/// Numbers that look random and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

#[test]
fn arbitrary_messages_leave_nothing_behind() {
    let image = Image::new();
    let mut process = image.serve(&["--num-queues=2"]);
    Driver::attach(&image).assert_serves();
    let mut driver = Driver::attach(&image);
    driver.assert_serves();
    let files = process.open_files().unwrap();
    drop(driver);

    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let fd = file.as_raw_fd();
    let mut numbers = Numbers(1);
    for _ in 0..400 {
        let wire = Wire::over(UnixStream::connect(image.socket()).unwrap()).unwrap();
        // Features with those of the protocol, so that later messages get further.
        wire.send(2, &0x1_7000_0000u64.to_ne_bytes(), &[]).unwrap();
        wire.send(16, &PROTOCOL_FEATURES.bits().to_ne_bytes(), &[]).unwrap();
        for _ in 0..16 {
            let request = numbers.below(46) as u32;
            // Mostly the right frame, so that what is in it gets looked at.
            let (mut len, mut count) = match request {
                1 | 3 | 4 | 15 | 17 | 34 | 36 => (0, 0),
                5 | 37 => (40, 1),
                9 | 38 => (40, 0),
                12..=14 => (8, 1),
                24 | 25 => (16, 0),
                31 => (24, 0),
                32 => (24, 1),
                _ => (8, 0),
            };
            if numbers.below(8) == 0 {
                (len, count) = (numbers.below(64) as u32, numbers.below(3) as usize);
            }
            // Mostly small values: indices, counts and sizes that could be meant.
            let payload: Vec<u8> = (0..len)
                .map(|at| match numbers.below(8) {
                    0 => numbers.below(256) as u8,
                    _ => u8::from(at % 4 == 0) * numbers.below(4) as u8,
                })
                .collect();
            // It fails once the other side has had enough.
            if wire.send_raw([request, 1 | 8, len], &payload, &vec![fd; count]).is_err() {
                break;
            }
        }
    }
    let mut driver = Driver::attach(&image);
    driver.assert_serves();
    assert_eq!(process.open_files().unwrap(), files);
    assert!(process.running().unwrap());
}

#[test]
fn half_a_message_does_not_keep_the_process_from_ending() {
    let image = Image::new();
    let mut process = image.serve(&[]);
    let front_end = FrontEnd::connect(image.socket(), Memory::new(1 << 20).unwrap()).unwrap();
    drop(front_end);
    for half in [&[1u8, 0, 0][..], &[2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0]] {
        let wire = Wire::over(UnixStream::connect(image.socket()).unwrap()).unwrap();
        std::io::Write::write_all(&mut wire.stream(), half).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let (status, _) = process.terminate().unwrap();
        assert!(status.success());
        process = image.serve(&[]);
        drop(FrontEnd::connect(image.socket(), Memory::new(1 << 20).unwrap()).unwrap());
    }
}

#[test]
fn memory_that_is_not_there_is_refused_by_name() {
    let image = Image::new();
    let mut process = image.serve(&[]);
    drop(FrontEnd::connect(image.socket(), Memory::new(1 << 20).unwrap()).unwrap());
    let wire = Wire::over(UnixStream::connect(image.socket()).unwrap()).unwrap();
    // A table of one region of 1 MiB in a file of 4 KiB.
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let mut payload = [1u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat();
    for word in [0u64, 1 << 20, 0x10000, 0] {
        payload.extend(word.to_ne_bytes());
    }
    wire.send(5, &payload, &[file.as_raw_fd()]).unwrap();
    assert!(wire.receive().ok().flatten().is_none());
    let (_, stderr) = process.terminate().unwrap();
    assert!(stderr.contains("SET_MEM_TABLE refused: cannot take the memory table"), "{stderr}");
}
