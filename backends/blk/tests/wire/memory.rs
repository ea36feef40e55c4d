//! Memory that changes under running rings: regions come and go, or what was shared is cut off.

use std::os::fd::AsRawFd;

use atoll_driver::{BlkRequest, TIMEOUT};
use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserInflight;

use crate::disk::{ALL_FEATURES, Driver, Image, sector_byte};

#[test]
fn memory_that_is_cut_off_stops_the_ring_and_not_the_process() {
    let image = Image::new();
    let mut process = image.serve(&[]);
    // The ring is gone, or it is there and the request is not.
    for keep in [0, 1 << 20] {
        let mut driver = Driver::attach(&image);
        let memory = driver.memory();
        driver.assert_serves();
        memory.allocate(2 << 20, 1).unwrap();
        let request = BlkRequest::read(&memory, 7, 512).unwrap();
        memory.cut(keep).unwrap();
        if keep > 0 {
            driver.queue.submit(&request.buffers()).unwrap();
        }
        driver.queue.kick().unwrap();
        assert!(driver.queue.wait_broken(TIMEOUT).unwrap(), "the front-end is told");
    }
    Driver::attach(&image).assert_serves();
    let (status, stderr) = process.terminate().unwrap();
    assert!(status.success(), "{status}: {stderr}");
    let said = stderr.matches("vring 0 stopped: the front-end cut off memory that is in use");
    assert_eq!(said.count(), 2, "{stderr}");
}

#[test]
fn a_record_that_is_cut_off_stops_the_ring_and_not_the_process() {
    let image = Image::new();
    let mut process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    let record = tempfile::tempfile().unwrap();
    // For one queue of 128.
    let len = 2112;
    record.set_len(len).unwrap();
    let layout = VhostUserInflight::new(len, 0, 1, 128);
    driver.device.inner().set_inflight_fd(&layout, record.as_raw_fd()).unwrap();
    driver.assert_serves();
    record.set_len(0).unwrap();
    let request = BlkRequest::read(driver.device.memory(), 7, 512).unwrap();
    driver.queue.submit(&request.buffers()).unwrap();
    assert!(driver.queue.wait_broken(TIMEOUT).unwrap(), "the front-end is told");
    drop(driver);
    Driver::attach(&image).assert_serves();
    let (_, stderr) = process.terminate().unwrap();
    let said = "ERROR vring 0 stopped: the front-end cut off memory that is in use";
    assert_eq!(stderr.trim(), said);
}

#[test]
fn regions_come_and_go_under_load() {
    let image = Image::new();
    let mut process = image.serve(&[]);
    let mut driver = Driver::attach_with(&image, ALL_FEATURES, 256);
    let memory = driver.memory();
    let extra = tempfile::tempfile().unwrap();
    extra.set_len(1 << 20).unwrap();
    let region = |place: u64| VhostUserMemoryRegionInfo {
        guest_phys_addr: (1 << 32) + (place << 20),
        memory_size: 1 << 20,
        userspace_addr: 0x1000 + (place << 20),
        mmap_offset: 0,
        mmap_handle: extra.as_raw_fd(),
    };
    let reads: Vec<_> =
        (0..64).map(|sector| BlkRequest::read(&memory, sector, 512).unwrap()).collect();
    for place in 0..40 {
        for read in &reads {
            memory.write(read.status, &[BlkRequest::PENDING]).unwrap();
            driver.queue.add(&read.buffers()).unwrap();
        }
        driver.queue.publish().unwrap();
        // Each stops the ring in the middle of the work, and starts it again.
        driver.device.inner().add_mem_region(&region(place)).unwrap();
        if place % 2 == 1 {
            driver.device.inner().remove_mem_region(&region(place)).unwrap();
        }
        for (sector, read) in (0..).zip(&reads) {
            driver.queue.wait(TIMEOUT).unwrap();
            assert_eq!(read.bytes(&memory).unwrap(), [sector_byte(sector); 512]);
        }
    }
    driver.assert_serves();
    assert_eq!(process.terminate().unwrap().1, "");
}
