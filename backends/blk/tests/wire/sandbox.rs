//! What a disk's process can't do any more once it serves.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use atoll_driver::{Process, Refusal, without};
use nix::sys::signal::Signal;

use crate::disk::{Driver, Image, PROGRAM};

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

/// Starts a process where these system calls fail.
fn start_without(
    calls: &[libc::c_long],
    errno: i32,
    start: impl FnOnce() -> Process + Send,
) -> Process {
    without(calls, Refusal::Errno(errno), start).unwrap()
}

fn serve_without(image: &Image, calls: &[libc::c_long], errno: i32) -> Process {
    start_without(calls, errno, || image.serve(&[]))
}

#[test]
fn without_landlock_one_line_says_so_and_the_filter_confines_alone() {
    let image = Image::new();
    let calls = [libc::SYS_landlock_create_ruleset];
    let mut process = serve_without(&image, &calls, libc::ENOSYS);
    Driver::attach(&image).assert_serves();
    assert!(process.confinement().unwrap().iter().all(|thread| thread.seccomp == 2));
    let (status, stderr) = process.terminate().unwrap();
    assert!(status.success());
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("this kernel has no Landlock"), "{stderr}");
}

#[test]
fn without_filters_it_does_not_start_and_says_how_it_would() {
    let image = Image::new();
    let calls = [libc::SYS_seccomp];
    let (status, stderr) = serve_without(&image, &calls, libc::ENOSYS).wait().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let line = "cannot install the filter of system calls; --no-sandbox runs without";
    assert!(stderr.contains(line), "{stderr}");
    assert!(!image.socket().exists());
}

/// Some of what a service manager forbids whose unit has `SystemCallFilter=~@privileged @resources`.
const PRIVILEGED: [libc::c_long; 6] = [
    libc::SYS_capset,
    libc::SYS_chown,
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_setpriority,
    libc::SYS_mbind,
];

#[test]
fn another_filter_that_refuses_the_usual_is_no_obstacle_to_who_has_no_privileges() {
    let image = Image::new();
    let user = format!("--user={NOBODY}:{NOBODY}");
    let mut arguments = Vec::new();
    if nix::unistd::geteuid().is_root() {
        chown(image.dir(), Some(NOBODY), None).unwrap();
        arguments.push(user.as_str());
    }
    let mut process = start_without(&PRIVILEGED, libc::EPERM, || image.serve(&arguments));
    Driver::attach(&image).assert_serves();
    let (status, stderr) = process.terminate().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn who_has_privileges_that_nobody_may_give_up_does_not_start() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let image = Image::new();
    let (status, stderr) = serve_without(&image, &PRIVILEGED, libc::EPERM).wait().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("cannot give up capabilities; --no-sandbox keeps them"), "{stderr}");
}

#[test]
fn no_core_file_tells_what_a_guest_had_in_memory() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let image = Image::new();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\"", PROGRAM]).args(image.args());
    command.current_dir(image.dir()).stdin(Stdio::null()).stdout(Stdio::null());
    // It would forbid the file by itself, but not what a program does that the kernel tells instead.
    let without = [libc::SYS_landlock_create_ruleset];
    let mut process = start_without(&without, libc::ENOSYS, || Process::run(&mut command).unwrap());
    Driver::attach(&image).assert_serves();
    process.signal(Signal::SIGABRT).unwrap();
    let (status, _) = process.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(libc::SIGABRT), false));
}

#[cfg(debug_assertions)]
fn trespassing(image: &Image, what: &str, path: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(image.args()).env("ATOLL_TRESPASS", what).env("ATOLL_TRESPASS_PATH", path);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

#[cfg(debug_assertions)]
fn trespass(image: &Image, what: &str, path: &str) -> Process {
    Process::run(&mut trespassing(image, what, path)).unwrap()
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
        ("unlinkat", &precious, "unlinkat"),
        ("name", "", "mprotect"),
        ("kill", "", "kill"),
        ("unshare", "", "unshare"),
        ("ioctl", "", "ioctl"),
        ("prctl", "", "prctl"),
        ("fcntl", "", "fcntl"),
        ("setsockopt", "", "setsockopt"),
        ("sendto", "", "sendto"),
        ("sigaction", "", "rt_sigaction"),
        ("scheduler", "", "sched_setscheduler"),
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
    // The names of its own files are not to be written to.
    let (status, stderr) = trespass(&image, "rename", "").wait().unwrap();
    assert_eq!((status.signal(), stderr.as_str()), (Some(libc::SIGSEGV), ""));
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
fn without_the_filter_landlock_still_refuses_all_files() {
    let image = Image::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let precious = elsewhere.path().join("precious");
    fs::write(&precious, b"precious").unwrap();
    let path = precious.display().to_string();
    for what in ["read", "write", "unlink", "unlinkat", "execve", "spawn"] {
        let path = if what == "spawn" { "/bin/true" } else { &path };
        let mut command = trespassing(&image, what, path);
        let mut process = Process::run(command.env("ATOLL_TRESPASS_UNFILTERED", "1")).unwrap();
        Driver::attach(&image).assert_serves();
        let (status, stderr) = process.terminate().unwrap();
        if stderr.contains("has no Landlock") {
            eprintln!("skipped: this kernel has no Landlock");
            return;
        }
        assert!(status.success(), "{what}: {stderr}");
        assert!(stderr.contains("PermissionDenied"), "{what}: {stderr}");
    }
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
}

#[test]
#[cfg(debug_assertions)]
fn without_a_sandbox_the_attempts_succeed() {
    let image = Image::new();
    let precious = image.dir().join("precious");
    let path = precious.display().to_string();
    for (what, there) in [("write", true), ("read", true), ("unlink", false)] {
        let mut process =
            Process::run(trespassing(&image, what, &path).arg("--no-sandbox")).unwrap();
        Driver::attach(&image).assert_serves();
        let (_, stderr) = process.terminate().unwrap();
        assert_eq!(stderr, "trespass: Ok(())\n", "{what}");
        assert_eq!(precious.exists(), there);
    }
}
