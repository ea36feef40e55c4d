//! Front-ends that come and go, changes while rings run, and the end of the process.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use atoll_driver::{BlkRequest, FrontEnd, Memory, Process, ServiceManager, TIMEOUT, pass_fd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use vhost::vhost_user::VhostUserFrontend;

use crate::disk::{ALL_FEATURES, Driver, Image, PROGRAM};

#[test]
fn a_front_end_may_leave_and_another_come() {
    let image = Image::new();
    let mut process = image.serve(&[]);
    for _ in 0..5 {
        Driver::attach(&image).assert_serves();
    }
    // Whoever leaves is forgotten: its threads end and its descriptors are closed.
    let mut driver = Driver::attach(&image);
    driver.assert_serves();
    let (files, threads) = (process.open_files().unwrap(), process.threads().unwrap().len());
    drop(driver);
    for _ in 0..20 {
        Driver::attach(&image).assert_serves();
    }
    let mut driver = Driver::attach(&image);
    driver.assert_serves();
    assert_eq!(process.open_files().unwrap(), files);
    assert_eq!(process.threads().unwrap().len(), threads);
    assert!(process.running().unwrap());
}

#[test]
fn with_once_the_process_ends_with_its_front_end() {
    let image = Image::new();
    let mut process = image.serve(&["--once"]);
    Driver::attach(&image).assert_serves();
    let (status, stderr) = process.wait().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert!(!image.socket().exists());
}

#[test]
fn a_reset_device_starts_over() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    driver.assert_serves();
    driver.device.inner().reset_device().unwrap();
    let request = BlkRequest::read(driver.device.memory(), 0, 512).unwrap();
    driver.queue.submit(&request.buffers()).unwrap();
    assert!(driver.queue.wait(Duration::from_millis(100)).is_err(), "a reset device serves");
    driver.device.negotiate(ALL_FEATURES).unwrap();
    driver.queue = driver.device.start_queue(0, 64).unwrap();
    driver.assert_serves();
}

#[test]
fn sigterm_ends_with_success_and_removes_the_socket() {
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGINT] {
        let image = Image::new();
        let mut process = image.serve(&[]);
        let mut driver = Driver::attach(&image);
        driver.assert_serves();
        process.signal(signal).unwrap();
        let (status, stderr) = process.wait().unwrap();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
        assert!(!image.socket().exists());
    }
}

#[test]
fn sigterm_finishes_what_is_in_flight() {
    let image = Image::new();
    let mut process = image.serve(&[]);
    let mut driver = Driver::attach_with(&image, ALL_FEATURES, 256);
    let memory = driver.memory();
    let requests: Vec<_> =
        (0..80).map(|n| BlkRequest::write(&memory, n * 8, &[0x77; 4096]).unwrap()).collect();
    for request in &requests {
        driver.queue.add(&request.buffers()).unwrap();
    }
    driver.queue.publish().unwrap();
    let (status, _) = process.terminate().unwrap();
    assert!(status.success());
    // Whatever was taken is answered, and nothing else was touched.
    let mut answered = 0;
    while driver.queue.take_used().unwrap().is_some() {
        answered += 1;
    }
    for (n, request) in requests.iter().enumerate() {
        let expected = if n < answered { BlkRequest::OK } else { BlkRequest::PENDING };
        assert_eq!(request.status(&memory).unwrap(), expected);
    }
}

#[test]
fn a_stopped_queue_goes_on_where_it_was() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    for _ in 0..10 {
        driver.assert_serves();
    }
    let base = driver.device.stop_queue(&driver.queue).unwrap();
    assert_eq!(base, 10);
    let request = BlkRequest::read(driver.device.memory(), 0, 512).unwrap();
    driver.queue.submit(&request.buffers()).unwrap();
    assert!(driver.queue.wait(Duration::from_millis(100)).is_err(), "a stopped queue serves");
    driver.device.attach(&driver.queue, base).unwrap();
    driver.queue.wait(TIMEOUT).unwrap();
    assert_eq!(request.status(driver.device.memory()).unwrap(), BlkRequest::OK);
    driver.assert_serves();
}

#[test]
fn a_disabled_queue_rests_until_it_is_enabled() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    driver.assert_serves();
    driver.device.enable(&driver.queue, false).unwrap();
    let request = BlkRequest::read(driver.device.memory(), 0, 512).unwrap();
    driver.queue.submit(&request.buffers()).unwrap();
    assert!(driver.queue.wait(Duration::from_millis(100)).is_err(), "a disabled queue serves");
    driver.device.enable(&driver.queue, true).unwrap();
    driver.queue.wait(TIMEOUT).unwrap();
    driver.assert_serves();
}

#[test]
fn memory_may_be_handed_over_again_under_load() {
    let image = Image::new();
    let _process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    let memory = driver.memory();
    for n in 0..50 {
        let request = BlkRequest::read(&memory, n, 4096).unwrap();
        driver.queue.submit(&request.buffers()).unwrap();
        driver.device.set_memory().unwrap();
        driver.queue.wait(TIMEOUT).unwrap();
        assert_eq!(request.bytes(&memory).unwrap(), image.read(n, 4096));
    }
}

#[test]
fn a_connected_descriptor_is_served_until_it_closes() {
    let image = Image::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut process = serve_fd(&image, &theirs);
    drop(theirs);
    let mut device = FrontEnd::over(ours, Memory::new(16 << 20).unwrap()).unwrap();
    device.negotiate(ALL_FEATURES).unwrap();
    let queue = device.start_queue(0, 64).unwrap();
    Driver { device, queue }.assert_serves();
    let (status, stderr) = process.wait().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_listening_descriptor_is_served_again_and_again() {
    let image = Image::new();
    let listener = UnixListener::bind(image.socket()).unwrap();
    let mut process = serve_fd(&image, &listener);
    for _ in 0..3 {
        Driver::attach(&image).assert_serves();
    }
    let (status, _) = process.terminate().unwrap();
    assert!(status.success());
    assert!(image.socket().exists(), "who made the socket removes it");
}

#[test]
fn a_service_manager_hands_over_the_socket_and_hears_of_start_and_end() {
    let image = Image::new();
    let listener = UnixListener::bind(image.socket()).unwrap();
    let blk_file = format!("--blk-file={}", image.path().display());
    let (manager, mut process) =
        ServiceManager::start(image.dir(), &[&listener], PROGRAM, [blk_file]).unwrap();
    assert_eq!(manager.notified().unwrap(), "READY=1");
    Driver::attach(&image).assert_serves();
    let (status, stderr) = process.terminate().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert_eq!(manager.notified().unwrap(), "STOPPING=1");
    assert!(image.socket().exists(), "who made the socket removes it");
}

#[test]
fn more_than_one_socket_from_a_service_manager_is_refused() {
    let image = Image::new();
    let listener = UnixListener::bind(image.socket()).unwrap();
    let blk_file = format!("--blk-file={}", image.path().display());
    let sockets = [&listener, &listener];
    let (_, mut process) =
        ServiceManager::start(image.dir(), &sockets, PROGRAM, [blk_file]).unwrap();
    let (status, stderr) = process.wait().unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(stderr.starts_with("atoll-blk: socket activation passes 2 sockets"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

fn serve_fd(image: &Image, socket: &impl AsFd) -> Process {
    let mut command = Command::new(PROGRAM);
    command.arg("--fd=3").arg(format!("--blk-file={}", image.path().display()));
    pass_fd(&mut command, socket, 3).unwrap();
    Process::run(&mut command).unwrap()
}

#[test]
fn a_stale_socket_is_replaced_and_a_foreign_file_is_not() {
    let image = Image::new();
    drop(UnixListener::bind(image.socket()).unwrap());
    assert!(image.socket().exists());
    let mut process = image.serve(&[]);
    Driver::attach(&image).assert_serves();
    process.terminate().unwrap();

    fs::File::create(image.socket()).unwrap().write_all(b"precious").unwrap();
    let (status, stderr) = image.serve(&[]).wait().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("exists and is not a socket"), "{stderr}");
    assert_eq!(fs::read(image.socket()).unwrap(), b"precious");
}

#[test]
fn an_idle_process_sleeps_and_is_small() {
    let image = Image::new();
    let process = image.serve(&[]);
    let mut driver = Driver::attach(&image);
    // Enough of them for the queue to be polled, where that pays.
    (0..1000).for_each(|_| driver.assert_serves());
    std::thread::sleep(Duration::from_millis(50));
    let before = process.cpu_nanoseconds().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let spent = process.cpu_nanoseconds().unwrap() - before;
    assert!(spent < 1_000_000, "{spent} ns of CPU while idle");
    let anonymous = process.anonymous_kib().unwrap();
    assert!(anonymous <= 1024, "{anonymous} KiB of heap and stacks");
    // The promise is about what users get: unoptimised code is several times as large, and counts as
    // private where nobody else runs it.
    if cfg!(not(debug_assertions)) {
        let private = process.private_kib().unwrap();
        assert!(private <= 3 * 1024, "{private} KiB of private memory");
    }
}

#[test]
fn all_queues_are_served_where_the_soft_limit_of_open_files_is_low() {
    const QUEUES: usize = 64;
    let image = Image::new();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(image.args()).arg(format!("--num-queues={QUEUES}"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let lower = move || Ok(setrlimit(Resource::RLIMIT_NOFILE, 256, hard)?);
    // SAFETY: it makes one system call and touches no heap.
    unsafe { command.pre_exec(lower) };
    let mut process = Process::run(&mut command).unwrap();
    let mut driver = Driver::attach(&image);
    let mut others: Vec<_> =
        (1..QUEUES).map(|index| driver.device.start_queue(index, 16).unwrap()).collect();
    assert!(process.open_files().unwrap() > 256, "that is no more than it may have anyway");
    let memory = driver.memory();
    for queue in &mut others {
        let request = BlkRequest::read(&memory, 7, 512).unwrap();
        queue.submit(&request.buffers()).unwrap();
        queue.wait(TIMEOUT).unwrap();
        assert_eq!(request.status(&memory).unwrap(), BlkRequest::OK);
    }
    driver.assert_serves();
    let (status, stderr) = process.terminate().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}
