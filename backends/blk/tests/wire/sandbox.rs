//! What a disk's process can't do any more once it serves.

use std::fs;
use std::os::unix::fs::chown;
#[cfg(debug_assertions)]
use std::os::unix::process::ExitStatusExt;
#[cfg(debug_assertions)]
use std::process::{Command, Stdio};

#[cfg(debug_assertions)]
use atoll_driver::Process;

#[cfg(debug_assertions)]
use crate::disk::PROGRAM;
use crate::disk::{Driver, Image};

/// A user that nothing belongs to.
const NOBODY: u32 = 64_123;

#[test]
fn every_thread_in_service_is_confined() {
    let image = Image::new();
    let process = image.serve(&["--num-queues=2"]);
    let mut driver = Driver::attach(&image);
    driver.assert_serves();
    let threads = process.confinement().unwrap();
    assert!(threads.len() >= 3, "{threads:?}");
    for thread in threads {
        assert_eq!((thread.seccomp, thread.no_new_privileges, thread.capabilities), (2, true, 0));
    }
}

#[test]
fn without_a_sandbox_nothing_is_given_up() {
    let image = Image::new();
    let process = image.serve(&["--no-sandbox"]);
    let mut driver = Driver::attach(&image);
    driver.assert_serves();
    let ours = fs::read_to_string("/proc/thread-self/status").unwrap();
    let theirs = process.confinement().unwrap();
    let filters = |line: &&str| line.starts_with("Seccomp:");
    let ours = ours.lines().find(filters).and_then(|line| line.split_whitespace().nth(1));
    for thread in theirs {
        assert_eq!(Some(thread.seccomp.to_string().as_str()), ours);
        assert_eq!(thread.capabilities != 0, nix::unistd::geteuid().is_root());
    }
}

#[test]
fn root_becomes_the_user_who_is_named_and_the_socket_is_still_removed() {
    let user = format!("--user={NOBODY}:{}", NOBODY + 1);
    let image = Image::new();
    if !nix::unistd::geteuid().is_root() {
        let (status, stderr) = image.serve(&[&user]).wait().unwrap();
        assert_eq!(status.code(), Some(2));
        assert!(stderr.contains("--user takes a start as root"), "{stderr}");
        return;
    }
    chown(image.dir(), Some(NOBODY), None).unwrap();
    let mut process = image.serve(&[&user]);
    let mut driver = Driver::attach(&image);
    driver.assert_serves();
    for thread in process.confinement().unwrap() {
        assert_eq!(thread.user, (NOBODY, NOBODY + 1));
        assert_eq!(thread.capabilities, 0);
    }
    let (status, stderr) = process.terminate().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert!(!image.socket().exists());
}

#[cfg(debug_assertions)]
fn trespass(image: &Image, what: &str, path: &str) -> Process {
    let mut command = Command::new(PROGRAM);
    command.args(image.args()).env("ATOLL_TRESPASS", what).env("ATOLL_TRESPASS_PATH", path);
    Process::run(command.stdin(Stdio::null()).stdout(Stdio::null())).unwrap()
}

#[test]
#[cfg(debug_assertions)]
fn a_forbidden_system_call_ends_the_process_and_is_named() {
    let image = Image::new();
    let precious = image.dir().join("precious");
    fs::write(&precious, b"precious").unwrap();
    let precious = precious.display().to_string();
    for (what, path, call) in [
        ("write", precious.as_str(), "openat"),
        ("unlink", &precious, "unlink"),
        ("execve", "", "execve"),
        ("socket", "/run/some.sock", "socket"),
        ("tcp", "", "socket"),
        ("ptrace", "", "ptrace"),
        ("code", "", "mmap"),
    ] {
        let (status, stderr) = trespass(&image, what, path).wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{what}: {stderr}");
        let line =
            format!("atoll-blk: ended by its sandbox, which does not allow the system call {call}");
        assert!(stderr.starts_with(&line), "{what}: {stderr}");
        assert!(!stderr.contains("trespass"), "{what}: {stderr}");
    }
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    // The C library starts a process with all signals blocked, and then nothing can be said.
    let (status, stderr) = trespass(&image, "spawn", "/bin/true").wait().unwrap();
    assert_eq!((status.signal(), stderr.as_str()), (Some(libc::SIGSYS), ""));
}

#[test]
#[cfg(debug_assertions)]
fn a_file_opened_to_be_read_is_refused_and_the_disk_serves_on() {
    let image = Image::new();
    let mut process = trespass(&image, "read", "/etc/passwd");
    Driver::attach(&image).assert_serves();
    let (status, stderr) = process.terminate().unwrap();
    assert!(status.success());
    assert!(stderr.contains("PermissionDenied"), "{stderr}");
}

#[test]
#[cfg(debug_assertions)]
fn without_a_sandbox_the_attempts_succeed() {
    let image = Image::new();
    let precious = image.dir().join("precious");
    let path = precious.display().to_string();
    for (what, there) in [("write", true), ("read", true), ("unlink", false)] {
        let mut command = Command::new(PROGRAM);
        command.args(image.args()).arg("--no-sandbox");
        command.env("ATOLL_TRESPASS", what).env("ATOLL_TRESPASS_PATH", &path);
        let mut process = Process::run(command.stdin(Stdio::null()).stdout(Stdio::null())).unwrap();
        Driver::attach(&image).assert_serves();
        let (_, stderr) = process.terminate().unwrap();
        assert_eq!(stderr, "trespass: Ok(())\n", "{what}");
        assert_eq!(precious.exists(), there);
    }
}
