//! Many requests at once, by each engine: whatever is done when, each finds what it should.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use atoll_driver::{BlkRequest, Memory, Process, TIMEOUT};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use seccompiler::{SeccompAction, SeccompFilter};

use crate::disk::{ALL_FEATURES, Driver, Image, PROGRAM, SECTOR, SECTORS, sector_byte};

const ENGINES: [&[&str]; 4] = [
    &["--aio=io_uring"],
    &["--aio=io_uring", "--cache=none"],
    &["--aio=threads"],
    &["--aio=threads", "--cache=none", "--poll-us=0"],
];

/// Forgets what the page cache has of the image, so that reads wait for the disk.
fn forget(image: &Image) {
    let file = File::open(image.path()).unwrap();
    file.sync_all().unwrap();
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
}

/// Puts all requests in flight at once, and waits until all are done.
fn run(driver: &mut Driver, requests: &[BlkRequest]) {
    for request in requests {
        driver.queue.add(&request.buffers()).unwrap();
    }
    driver.queue.publish().unwrap();
    for _ in requests {
        driver.queue.wait(TIMEOUT).unwrap();
    }
    let memory = driver.memory();
    assert!(requests.iter().all(|request| request.status(&memory).unwrap() == BlkRequest::OK));
}

#[test]
fn many_reads_at_once_find_what_is_on_the_disk() {
    for options in ENGINES {
        let image = Image::new();
        let _process = image.serve(options);
        let mut driver = Driver::attach_with(&image, ALL_FEATURES, 256);
        forget(&image);
        let memory = driver.memory();
        let places: Vec<u64> = (0..80).map(|n| n * 409 % (SECTORS - 8)).collect();
        let read = |&sector: &u64| BlkRequest::read(&memory, sector, 8 * 512).unwrap();
        let reads: Vec<_> = places.iter().map(read).collect();
        run(&mut driver, &reads);
        for (&place, read) in places.iter().zip(&reads) {
            let expected: Vec<u8> =
                (place..place + 8).flat_map(|sector| [sector_byte(sector); SECTOR]).collect();
            assert!(read.bytes(&memory).unwrap() == expected, "{options:?}: sector {place}");
        }
    }
}

/// The names of the process's threads, those included that the kernel has for it.
fn threads(process: &Process) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let name = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm")).ok();
    threads.filter_map(|thread| name(thread.unwrap())).collect()
}

#[test]
fn an_image_in_memory_is_read_without_another_thread() {
    let image = Image::in_memory();
    let process = image.serve(&["--aio=io-uring"]);
    let mut driver = Driver::attach_with(&image, ALL_FEATURES, 256);
    let memory = driver.memory();
    let reads: Vec<_> = (0..80).map(|n| BlkRequest::read(&memory, n * 8, 4096).unwrap()).collect();
    run(&mut driver, &reads);
    assert!(reads[1].bytes(&memory).unwrap()[..SECTOR] == [sector_byte(8); SECTOR]);
    // Those that the kernel starts for a ring wait for more work for a while.
    let threads = threads(&process);
    assert!(!threads.iter().any(|name| name.starts_with("iou-wrk")), "{threads:?}");
}

#[test]
fn many_writes_at_once_reach_the_disk_and_a_flush_sees_them() {
    for options in ENGINES {
        let image = Image::new();
        let _process = image.serve(options);
        let mut driver = Driver::attach_with(&image, ALL_FEATURES, 256);
        let memory = driver.memory();
        let byte = |n: u64| 0x80 | n as u8;
        let writes: Vec<_> = (0..64)
            .map(|n| BlkRequest::write(&memory, n * 16, &[byte(n); 4096]).unwrap())
            .collect();
        run(&mut driver, &writes);
        run(&mut driver, &[BlkRequest::flush(&memory).unwrap()]);
        for n in 0..64 {
            assert_eq!(image.read(n * 16, 4096), [byte(n); 4096], "{options:?}");
            assert_eq!(image.read(n * 16 + 8, 512), [sector_byte(n * 16 + 8); 512], "{options:?}");
        }
    }
}

#[test]
fn requests_of_all_kinds_run_at_once_on_several_queues() {
    for options in ENGINES {
        let image = Image::new();
        let options: Vec<_> = options.iter().copied().chain(["--num-queues=3"]).collect();
        let mut process = image.serve(&options);
        let mut driver = Driver::attach_with(&image, ALL_FEATURES, 256);
        let memory = driver.memory();
        let mut others: Vec<_> =
            (1..3).map(|index| driver.device.start_queue(index, 256).unwrap()).collect();
        let requests = |place: u64| {
            [
                BlkRequest::write(&memory, place, &[7; 4096]).unwrap(),
                BlkRequest::read(&memory, place + 8, 4096).unwrap(),
                BlkRequest::flush(&memory).unwrap(),
                BlkRequest::ranges(&memory, BlkRequest::DISCARD, &[(place + 16, 8, 0)]).unwrap(),
                BlkRequest::ranges(&memory, BlkRequest::WRITE_ZEROES, &[(place + 24, 8, 0)])
                    .unwrap(),
            ]
        };
        let all: Vec<_> = (0..3).map(|queue| (queue + 1) * 64).map(requests).collect();
        for (queue, requests) in others.iter_mut().zip(&all[1..]) {
            for request in requests {
                queue.add(&request.buffers()).unwrap();
            }
            queue.publish().unwrap();
        }
        run(&mut driver, &all[0]);
        for queue in &mut others {
            for _ in 0..5 {
                queue.wait(TIMEOUT).unwrap();
            }
        }
        for (n, requests) in (1..).zip(&all) {
            let statuses = requests.iter().map(|request| request.status(&memory).unwrap());
            assert!(statuses.into_iter().all(|status| status == BlkRequest::OK), "{options:?}");
            assert_eq!(image.read(n * 64, 4096), [7; 4096]);
            assert_eq!(requests[1].bytes(&memory).unwrap()[..512], [sector_byte(n * 64 + 8); 512]);
            assert_eq!(image.read(n * 64 + 24, 4096), [0; 4096]);
        }
        let (status, stderr) = process.terminate().unwrap();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    }
}

#[test]
fn a_queue_that_stops_has_finished_what_it_took() {
    for options in ENGINES {
        let image = Image::new();
        let _process = image.serve(options);
        let mut driver = Driver::attach_with(&image, ALL_FEATURES, 256);
        forget(&image);
        let memory = driver.memory();
        for round in 0..20_u64 {
            let reads: Vec<_> = (0..40)
                .map(|n| BlkRequest::read(&memory, (n * 47 + round) % SECTORS, 512).unwrap())
                .collect();
            for read in &reads {
                driver.queue.add(&read.buffers()).unwrap();
            }
            driver.queue.publish().unwrap();
            let base = driver.device.stop_queue(&driver.queue).unwrap();
            assert_eq!(driver.queue.ring().used_index().unwrap(), base, "{options:?}");
            driver.device.attach(&driver.queue, base).unwrap();
            while driver.queue.outstanding() > 0 {
                driver.queue.wait(TIMEOUT).unwrap();
            }
        }
        driver.assert_serves();
    }
}

#[test]
fn a_front_end_that_leaves_with_requests_in_flight_leaves_nothing_behind() {
    for options in ENGINES {
        let image = Image::new();
        let mut process = image.serve(options);
        for _ in 0..10 {
            let mut driver = Driver::attach_with(&image, ALL_FEATURES, 256);
            forget(&image);
            let memory = driver.memory();
            for n in 0..40 {
                let read = BlkRequest::read(&memory, n * 47 % SECTORS, 512).unwrap();
                driver.queue.add(&read.buffers()).unwrap();
            }
            driver.queue.publish().unwrap();
        }
        Driver::attach(&image).assert_serves();
        assert!(process.running().unwrap());
    }
}

/// The disk, served by a process for which the kernel has no io_uring.
fn serve_without_io_uring(image: &Image, more: &[&str]) -> Process {
    let filter = SeccompFilter::new(
        [(libc::SYS_io_uring_setup, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(image.args()).args(more).stdin(Stdio::null()).stdout(Stdio::null());
    let install = move || seccompiler::apply_filter(&program).map_err(std::io::Error::other);
    // SAFETY: the filter is made already; installing it allocates nothing.
    unsafe { command.pre_exec(install) };
    Process::run(&mut command).unwrap()
}

#[test]
fn threads_serve_where_io_uring_is_not_permitted_and_the_log_says_so_once() {
    let image = Image::new();
    let mut process = serve_without_io_uring(&image, &["--num-queues=4"]);
    let mut driver = Driver::attach_with(&image, ALL_FEATURES, 256);
    let memory: Memory = driver.memory();
    let reads: Vec<_> = (0..64).map(|n| BlkRequest::read(&memory, n, 512).unwrap()).collect();
    run(&mut driver, &reads);
    driver.assert_serves();
    let (status, stderr) = process.terminate().unwrap();
    assert!(status.success());
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("no io_uring, so that threads serve the disk"), "{stderr}");
}

#[test]
fn io_uring_or_nothing_is_nothing_where_it_is_not_permitted() {
    let image = Image::new();
    let mut process = serve_without_io_uring(&image, &["--aio=io_uring"]);
    let (status, stderr) = process.wait().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("cannot make an io_uring; --aio=threads goes without"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
