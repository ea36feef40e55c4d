//! `--file`: a log that grows, or a pipe.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use atoll_driver::Buffer;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::rig::{MOMENT, Rig, eventually, pattern, reader};

/// What a pipe holds.
const PIPE: usize = 64 << 10;
/// What is kept for slow readers.
const KEPT: usize = 256 << 10;

#[test]
fn output_is_added_to_what_the_file_has() {
    let mut rig = Rig::start(|dir| {
        fs::write(dir.join("log"), "from yesterday\n").unwrap();
        vec![format!("--file={}", dir.join("log").display())]
    });
    let out = pattern(2 << 20);
    rig.guest.print(&out);
    rig.terminate();
    let log = fs::read(rig.path("log")).unwrap();
    let (before, added) = log.split_at(15);
    assert_eq!(before, b"from yesterday\n");
    assert!(added == out, "the output differs");
}

#[test]
fn what_is_printed_is_soon_in_the_file() {
    let mut rig = Rig::start(|dir| vec![format!("--file={}", dir.join("log").display())]);
    rig.guest.print(b"soon");
    eventually("the line in the file", || {
        (fs::read(rig.path("log")).unwrap() == b"soon").then_some(())
    });
}

/// A console whose file is a pipe, and the end that reads it.
fn piped() -> (Rig, File) {
    let mut end = None;
    let rig = Rig::start(|dir| {
        let path = dir.join("log");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        // Else it would wait for who writes.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        end = opened.ok();
        vec![format!("--file={}", path.display())]
    });
    let end = end.unwrap();
    fcntl(&end, FcntlArg::F_SETFL(OFlag::O_RDONLY)).unwrap();
    (rig, end)
}

/// Prints more at once than the pipe holds and is kept, and does not wait for it.
fn print_more_than_is_kept(rig: &mut Rig) {
    let address = rig.guest.device.memory().allocate(8192, 1).unwrap();
    for _ in 0..60 {
        rig.guest.transmit.submit(&[Buffer::readable(address, 8192)]).unwrap();
    }
}

#[test]
fn a_pipe_whose_reader_sleeps_keeps_nobody_waiting_for_long() {
    let (mut rig, mut asleep) = piped();
    print_more_than_is_kept(&mut rig);
    asleep.read_exact(&mut [0]).unwrap();
    // The front-end leaves while nothing goes out, and the next one is served.
    rig.reattach();
    let out = pattern(1 << 20);
    rig.guest.print(&out);
    let (status, stderr) = rig.process.terminate().unwrap();
    assert!(status.success(), "{status}: {stderr}");
    assert_eq!(stderr.matches("the console's last output found no reader").count(), 1, "{stderr}");
}

#[test]
fn who_reads_a_pipe_again_gets_the_newest_that_is_kept() {
    let (mut rig, mut late) = piped();
    let out = pattern(1 << 20);
    rig.guest.print(&out);
    let reading = thread::spawn(move || {
        let mut got = Vec::new();
        late.read_to_end(&mut got).unwrap();
        got
    });
    rig.terminate();
    let got = reading.join().unwrap();
    // First what was in the pipe, which may have room for less than a whole write.
    let (before, kept) = got.split_at(got.len() - KEPT);
    assert!((PIPE / 2..=PIPE).contains(&before.len()), "{} bytes were in the pipe", before.len());
    assert!(out.starts_with(before), "the oldest differ");
    assert!(out.ends_with(kept), "the newest differ");
}

#[test]
fn a_pipe_with_a_slow_reader_loses_nothing() {
    let (mut rig, mut slow) = piped();
    let out = pattern(1 << 20);
    let expected = out.clone();
    let reading = thread::spawn(move || {
        let (mut got, mut piece) = (Vec::new(), vec![0; 200 << 10]);
        while got.len() < expected.len() {
            thread::sleep(MOMENT);
            let count = slow.read(&mut piece).unwrap();
            assert_ne!(count, 0, "it is cut off");
            got.extend_from_slice(&piece[..count]);
        }
        assert!(got == expected, "the output differs");
        slow
    });
    rig.guest.print(&out);
    let _end = reading.join().unwrap();
    rig.terminate();
}

#[test]
fn a_full_pipe_is_waited_for_without_work() {
    let (mut rig, mut full) = piped();
    print_more_than_is_kept(&mut rig);
    full.read_exact(&mut [0]).unwrap();
    thread::sleep(MOMENT);
    let before = rig.process.cpu_nanoseconds().unwrap();
    thread::sleep(MOMENT);
    let spent = rig.process.cpu_nanoseconds().unwrap() - before;
    assert!(spent < 5_000_000, "{spent} ns of work though there is nothing to do");
    // As long as the guest is waited for, nothing is lost.
    reader(full, 60 * 8192 - 1).join().unwrap();
    rig.terminate();
}

#[test]
fn a_pipe_that_nobody_has_open_any_more_does_not_stop_the_guest() {
    let (mut rig, end) = piped();
    rig.guest.print(b"!");
    drop(end);
    rig.guest.print(&pattern(1 << 20));
    let (status, stderr) = rig.process.terminate().unwrap();
    assert!(status.success(), "{status}: {stderr}");
    let complaint = "the console's output is no longer added to its file: ";
    assert_eq!(stderr.matches(complaint).count(), 1, "{stderr}");
}
