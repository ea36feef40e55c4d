//! Every kind of request, and the limits of each.

use atoll_driver::{
    BlkRequest, Buffer, EVENT_IDX, FrontEnd, INDIRECT_DESC, Memory, TIMEOUT, VERSION_1,
};

use crate::disk::{ALL_FEATURES, Driver, FLUSH, Image, SECTOR, SECTORS, sector_byte};

const READ_ONLY: u64 = 1 << 5;
const SEG_MAX: u64 = 1 << 2;
const MQ: u64 = 1 << 12;

#[test]
fn config_space_tells_capacity_segments_and_queues() {
    let image = Image::new();
    let _process = image.serve(&["--num-queues=3"]);
    let mut driver = Driver::attach(&image);
    let config = driver.device.config(0, 60).unwrap();
    assert_eq!(config[0..8], SECTORS.to_le_bytes());
    assert_eq!(config[8..12], [0; 4], "size_max is not offered");
    assert_eq!(config[12..16], 126u32.to_le_bytes());
    assert_eq!(config[20..24], 512u32.to_le_bytes());
    assert_eq!(config[34..36], 3u16.to_le_bytes());
    let word = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
    assert_eq!([36, 40, 44].map(word), [1 << 21, 16, 1], "discard");
    assert_eq!([48, 52, 56].map(word), [1 << 17, 1, 1], "write zeroes");
    assert_eq!(driver.device.config(60, 24).unwrap(), [0; 24], "there is nothing behind the end");
    assert_eq!(driver.device.config(34, 2).unwrap(), 3u16.to_le_bytes());
    assert_eq!(driver.device.queue_count().unwrap(), 3);
    let offered = driver.device.offered();
    assert_eq!(offered & (SEG_MAX | FLUSH | MQ | READ_ONLY), SEG_MAX | FLUSH | MQ);
    assert_eq!(
        offered & (VERSION_1 | EVENT_IDX | INDIRECT_DESC),
        VERSION_1 | EVENT_IDX | INDIRECT_DESC
    );
}

#[test]
fn nothing_but_the_cache_mode_can_be_written_to_config_space() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    driver.device.write_config(31, &[1, 1]).unwrap_err();
    driver.device.write_config(33, &[1]).unwrap_err();
    driver.device.write_config(0, &[1]).unwrap_err();
    driver.device.write_config(4000, &[1]).unwrap_err();
    driver.assert_serves();
}

#[test]
fn reads_return_what_the_image_holds() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    let request = BlkRequest::read(driver.device.memory(), 3, 1024).unwrap();
    assert_eq!(driver.request(&request), (BlkRequest::OK, 1025));
    let bytes = request.bytes(driver.device.memory()).unwrap();
    assert_eq!(bytes[..SECTOR], [sector_byte(3); SECTOR]);
    assert_eq!(bytes[SECTOR..], [sector_byte(4); SECTOR]);
}

#[test]
fn writes_change_the_image_and_nothing_beside() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    let request = BlkRequest::write(driver.device.memory(), 10, &[0xab; 1536]).unwrap();
    assert_eq!(driver.request(&request), (BlkRequest::OK, 1));
    assert_eq!(image.read(9, SECTOR), [sector_byte(9); SECTOR]);
    assert_eq!(image.read(10, 1536), [0xab; 1536]);
    assert_eq!(image.read(13, SECTOR), [sector_byte(13); SECTOR]);
    assert_eq!(driver.read(10, 1536), (BlkRequest::OK, vec![0xab; 1536]));
}

#[test]
fn the_last_sector_can_be_used_and_none_behind_it() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    assert_eq!(driver.read(SECTORS - 1, 512).0, BlkRequest::OK);
    assert_eq!(driver.write(SECTORS - 1, &[1; 512]), BlkRequest::OK);
    assert_eq!(driver.read(SECTORS - 1, 1024).0, BlkRequest::IOERR);
    assert_eq!(driver.write(SECTORS, &[1; 512]), BlkRequest::IOERR);
    assert_eq!(driver.read(u64::MAX, 512).0, BlkRequest::IOERR);
    assert_eq!(driver.read(u64::MAX / 512, 1024).0, BlkRequest::IOERR);
    assert_eq!(image.path().metadata().unwrap().len(), SECTORS * 512);
}

#[test]
fn partial_sectors_are_refused() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    assert_eq!(driver.read(0, 100).0, BlkRequest::IOERR);
    assert_eq!(driver.write(0, &[1; 513]), BlkRequest::IOERR);
    assert_eq!(image.read(0, 1024)[..SECTOR], [sector_byte(0); SECTOR]);
}

#[test]
fn a_failed_read_claims_no_bytes() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    let request = BlkRequest::read(driver.device.memory(), SECTORS, 512).unwrap();
    assert_eq!(driver.request(&request), (BlkRequest::IOERR, 0));
}

#[test]
fn flush_and_unknown_requests_get_their_status() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    let memory = driver.memory();
    let flush = BlkRequest::flush(&memory).unwrap();
    assert_eq!(driver.request(&flush), (BlkRequest::OK, 1));
    let erase = BlkRequest::ranges(&memory, BlkRequest::SECURE_ERASE, &[(0, 8, 0)]).unwrap();
    assert_eq!(driver.request(&erase), (BlkRequest::UNSUPP, 1));
}

#[test]
fn the_serial_number_is_padded_with_zeroes() {
    let image = Image::new();
    let _process = image.serve(&["--serial=ATOLL-0001"]);
    let mut driver = Driver::attach(&image);
    let memory = driver.memory();
    let room = memory.put(&[0xff; 20]).unwrap();
    let data = vec![Buffer::writable(room, 20)];
    let request = BlkRequest::new(&memory, BlkRequest::GET_ID, 0, data).unwrap();
    assert_eq!(driver.request(&request), (BlkRequest::OK, 21));
    assert_eq!(memory.get(room, 20).unwrap(), b"ATOLL-0001\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn a_read_only_disk_refuses_writes() {
    let image = Image::new();
    let _process = image.serve(&["--read-only"]);
    let mut driver = Driver::attach(&image);
    assert_eq!(driver.device.offered() & READ_ONLY, READ_ONLY);
    assert_eq!(driver.write(0, &[1; 512]), BlkRequest::IOERR);
    driver.assert_serves();
    assert_eq!(image.read(0, SECTOR), [sector_byte(0); SECTOR]);
}

#[test]
fn framing_means_nothing() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    let memory = driver.memory();

    // Header and data in one buffer, cut at odd places.
    let mut bytes = [1u32.to_le_bytes(), 0u32.to_le_bytes()].concat();
    bytes.extend(20u64.to_le_bytes());
    bytes.extend([0x5a; 512]);
    let at = memory.put(&bytes).unwrap();
    let status = memory.put(&[0xff]).unwrap();
    let used = driver.submit(&[
        Buffer::readable(at, 5),
        Buffer::readable(at + 5, 100),
        Buffer::readable(at + 105, 528 - 105),
        Buffer::writable(status, 1),
    ]);
    assert_eq!((used.len, memory.get(status, 1).unwrap()), (1, vec![BlkRequest::OK]));
    assert_eq!(image.read(20, SECTOR), [0x5a; SECTOR]);

    // Data and status in one buffer.
    let header = BlkRequest::read(&memory, 20, 512).unwrap().header;
    let room = memory.put(&[0xff; 513]).unwrap();
    let used = driver.submit(&[Buffer::readable(header, 16), Buffer::writable(room, 513)]);
    assert_eq!(used.len, 513);
    let room = memory.get(room, 513).unwrap();
    assert_eq!((&room[..512], room[512]), (&[0x5a; 512][..], BlkRequest::OK));
}

#[test]
fn requests_of_many_segments_work_directly_and_indirectly() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    let memory = driver.memory();
    // More segments than one system call takes of ours, at the limit that seg_max promises.
    for indirect in [false, true] {
        let mut request = BlkRequest::read(&memory, 0, 126 * 512).unwrap();
        let whole = request.data[0];
        request.data = (0..126).map(|n| Buffer::writable(whole.addr + n * 512, 512)).collect();
        let buffers = request.buffers();
        if indirect {
            driver.queue.add_indirect(&buffers).unwrap();
        } else {
            driver.queue.add(&buffers).unwrap();
        }
        driver.queue.publish().unwrap();
        let used = driver.queue.wait(TIMEOUT).unwrap();
        assert_eq!(used.len, 126 * 512 + 1);
        assert_eq!(request.status(&memory).unwrap(), BlkRequest::OK);
        assert_eq!(request.bytes(&memory).unwrap(), image.read(0, 126 * 512));
    }
    // Far more, in an indirect table alone.
    let mut request = BlkRequest::read(&memory, 0, 1000 * 512).unwrap();
    let whole = request.data[0];
    request.data = (0..1000).map(|n| Buffer::writable(whole.addr + n * 512, 512)).collect();
    driver.queue.add_indirect(&request.buffers()).unwrap();
    driver.queue.publish().unwrap();
    assert_eq!(driver.queue.wait(TIMEOUT).unwrap().len, 1000 * 512 + 1);
    assert_eq!(request.bytes(&memory).unwrap(), image.read(0, 1000 * 512));
}

#[test]
fn many_requests_at_once_all_complete_with_and_without_event_idx() {
    for features in [VERSION_1 | FLUSH, VERSION_1 | FLUSH | EVENT_IDX] {
        let image = Image::new();
        let _process = image.serve(&[]);
        let mut driver = Driver::attach_with(&image, features, 256);
        let memory = driver.memory();
        for round in 0..20 {
            let requests: Vec<_> =
                (0..64).map(|n| BlkRequest::read(&memory, round * 64 + n, 512).unwrap()).collect();
            for request in &requests {
                driver.queue.add(&request.buffers()).unwrap();
            }
            driver.queue.publish().unwrap();
            for _ in &requests {
                driver.queue.wait(TIMEOUT).unwrap();
            }
            for (n, request) in requests.iter().enumerate() {
                assert_eq!(request.status(&memory).unwrap(), BlkRequest::OK);
                let expected = [sector_byte(round * 64 + n as u64); SECTOR];
                assert_eq!(request.bytes(&memory).unwrap(), expected);
            }
        }
    }
}

#[test]
fn a_driver_that_wants_no_calls_gets_none() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach_with(&image, VERSION_1 | FLUSH, 16);
    let memory = driver.memory();
    // One is made when the descriptor arrives, in case something was missed before it.
    driver.queue.wait_call(TIMEOUT).unwrap();
    driver.queue.ring().set_call_wanted(false).unwrap();
    let request = BlkRequest::flush(&memory).unwrap();
    driver.queue.submit(&request.buffers()).unwrap();
    let deadline = std::time::Instant::now() + TIMEOUT;
    while driver.queue.take_used().unwrap().is_none() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(!driver.queue.wait_call(std::time::Duration::from_millis(50)).unwrap());
}

#[test]
fn each_queue_serves() {
    let image = Image::new();
    let process = image.serve(&["--num-queues=4"]);
    let memory = Memory::new(16 << 20).unwrap();
    let mut device = FrontEnd::connect(image.socket(), memory.clone()).unwrap();
    device.negotiate(ALL_FEATURES).unwrap();
    let mut queues: Vec<_> = (0..4).map(|n| device.start_queue(n, 64).unwrap()).collect();
    for (n, queue) in queues.iter_mut().enumerate() {
        let request = BlkRequest::write(&memory, n as u64, &[n as u8 + 100; 512]).unwrap();
        queue.submit(&request.buffers()).unwrap();
        queue.wait(TIMEOUT).unwrap();
        assert_eq!(request.status(&memory).unwrap(), BlkRequest::OK);
        assert_eq!(image.read(n as u64, SECTOR), [n as u8 + 100; SECTOR]);
    }
    let threads = process.threads().unwrap();
    for n in 0..4 {
        assert!(threads.contains(&format!("vring{n}")), "{threads:?}");
    }
}

#[test]
fn without_protocol_features_rings_start_by_themselves() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let memory = Memory::new(16 << 20).unwrap();
    let mut device = FrontEnd::connect(image.socket(), memory).unwrap();
    device.negotiate_with(VERSION_1 | FLUSH, atoll_driver::ProtocolFeatures::empty()).unwrap();
    let queue = device.start_queue(0, 64).unwrap();
    Driver { device, queue }.assert_serves();
}
