//! The control socket of a running machine, through `atoll ctl` and as HTTP; and what a service
//! manager is told. The guest halts and never answers its power button.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use atoll_tests::image::Image;
use atoll_tests::process::{Finished, Process, run};
use atoll_tests::requirement::Requirement::AnyKvm;
use atoll_tests::{PATIENCE, program, require, wait_for};
use serde_json::{Value, json};

use crate::refusal::{FAILURE, Run, USAGE, assert_refuses};

/// A running machine with a control socket, and maybe a disk.
pub(crate) struct Controlled {
    pub(crate) vmm: Process,
    socket: PathBuf,
    _run: Run,
}

impl Controlled {
    #[track_caller]
    pub(crate) fn start(disk: Option<&Image>) -> Self {
        let disk = disk.map(|image| format!("path={}", image.path().display()));
        Self::start_with(disk.iter().flat_map(|disk| ["--disk", disk]))
    }

    /// With `options` more.
    #[track_caller]
    pub(crate) fn start_with<'a>(options: impl IntoIterator<Item = &'a str>) -> Self {
        let run = Run::new();
        let socket = run.scratch.join("control");
        let run = run.with("--grace").with("1").with("--control").with(text(&socket));
        let run = options.into_iter().fold(run, Run::with);
        let vmm = run.start();
        let machine = Self { vmm, socket, _run: run };
        wait_for("the guest to start", || {
            let finished = machine.ask(&["info", "--json"]);
            (finished.code == 0 && json_of(&finished)["state"] == "running").then_some(())
        });
        machine
    }

    fn ask(&self, words: &[&str]) -> Finished {
        run("atoll", ["ctl", "--socket", text(&self.socket)].iter().chain(words))
    }

    /// What `atoll ctl` says to `words`.
    #[track_caller]
    pub(crate) fn ctl(&self, words: &[&str]) -> String {
        let finished = self.ask(words);
        assert_eq!(finished.code, 0, "{words:?}: {}", finished.stderr);
        finished.stdout
    }

    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let words: Vec<_> = words.iter().copied().chain(["--json"]).collect();
        json_of(&self.ask(&words))
    }

    /// Everything that has happened so far.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        let lines = self.ctl(&["events", "--no-follow", "--json"]);
        lines.lines().map(|line| serde_json::from_str(line).expect("an event is JSON")).collect()
    }

    #[track_caller]
    pub(crate) fn refuses(&self, words: &[&str], sentence: &[&str]) {
        let all = ["ctl", "--socket", text(&self.socket)].into_iter().chain(words.iter().copied());
        assert_refuses("atoll", all, FAILURE, sentence);
    }

    /// The whole answer to `request`, sent as it is.
    #[track_caller]
    pub(crate) fn raw(&self, request: &[u8]) -> String {
        let mut client = UnixStream::connect(&self.socket).expect("connect");
        client.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        // It may be refused before it is all sent.
        let _refused = client.write_all(request);
        let mut answer = Vec::new();
        let _reset = client.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("scratch paths are text")
}

#[track_caller]
fn json_of(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).expect("JSON on standard output")
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["kind"].as_str()).collect()
}

#[test]
fn a_machine_tells_how_it_is_and_what_it_has() {
    require!(AnyKvm);
    let image = Image::blank(4096);
    let mut machine = Controlled::start(Some(&image));
    let info = machine.json(&["info"]);
    assert_eq!((&info["pid"], &info["cpus"]), (&json!(machine.vmm.pid()), &json!(1)));
    assert!(machine.ctl(&["info"]).contains("running"));
    let devices = machine.json(&["device", "list"]);
    assert_eq!((&devices[0]["id"], &devices[0]["type"]), (&json!("disk0"), &json!("blk")));
    assert!(machine.ctl(&["device", "list"]).contains("disk0"));
    assert_eq!(machine.vmm.stop().code, 0);
}

#[test]
fn a_machine_pauses_and_goes_on_and_says_so() {
    require!(AnyKvm);
    let machine = Controlled::start(None);
    for _twice_is_once in 0..2 {
        machine.ctl(&["pause"]);
    }
    let info = machine.json(&["info"]);
    assert_eq!((&info["state"], &info["paused_by"]), (&json!("paused"), &json!(["user"])));
    machine.ctl(&["resume"]);
    assert_eq!(machine.json(&["info"])["state"], "running");
    let events = machine.events();
    assert_eq!(kinds(&events)[..3], ["booted", "paused", "resumed"]);
    let numbers: Vec<_> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert!(numbers.iter().copied().eq(1..=events.len() as u64), "{numbers:?}");
}

#[test]
fn shutdown_presses_the_power_button_and_nothing_more() {
    require!(AnyKvm);
    let mut machine = Controlled::start(None);
    for _no_matter_how_often in 0..3 {
        machine.ctl(&["shutdown"]);
    }
    wait_for("the button", || kinds(&machine.events()).contains(&"power-button").then_some(()));
    assert!(machine.vmm.is_running());
}

#[test]
fn whoever_follows_hears_of_the_end() {
    require!(AnyKvm);
    let mut machine = Controlled::start(None);
    let words = ["ctl", "--socket", text(&machine.socket), "events"];
    let mut follower = Process::ours("atoll", words);
    wait_for("the first event", || follower.stdout().contains("booted").then_some(()));
    assert_eq!(machine.vmm.stop().code, 0);
    let heard = follower.wait();
    assert_eq!(heard.code, 0, "{}", heard.stderr);
    assert!(heard.stdout.lines().last().is_some_and(|line| line.contains("ended")), "{heard:?}");
    assert!(!machine.socket.exists());
}

#[test]
fn what_a_machine_has_not_is_named_with_what_it_has() {
    require!(AnyKvm);
    let image = Image::blank(4096);
    let machine = Controlled::start(Some(&image));
    machine.refuses(&["device", "reattach", "disk9"], &["disk9", "disk0"]);
    machine.refuses(&["device", "swap", "disk9", "socket=/s"], &["disk9", "disk0"]);
}

#[test]
fn a_swap_to_nobody_is_refused_and_the_device_stays() {
    require!(AnyKvm);
    let image = Image::blank(4096);
    let machine = Controlled::start(Some(&image));
    machine.refuses(&["device", "swap", "disk0", "socket=/nonexistent/s"], &["/nonexistent/s"]);
    let children = atoll_tests::procfs::children(machine.vmm.pid());
    assert!(children.values().any(|name| name == "atoll-blk"), "{children:?}");
}

#[test]
fn a_control_command_without_a_machine_says_what_is_missing() {
    assert_refuses("atoll", ["ctl", "info"], USAGE, &["--socket", "ATOLL_CONTROL"]);
    let words = ["ctl", "--socket", "/nonexistent/c", "info"];
    assert_refuses("atoll", words, FAILURE, &["/nonexistent/c", "No such file"]);
    let swap = ["ctl", "--socket", "/c", "device", "swap", "disk0", "/new"];
    assert_refuses("atoll", swap, USAGE, &["socket=PATH"]);
}

#[test]
fn what_is_not_a_control_socket_is_named() {
    let peer = atoll_tests::peer::Peer::play(|mut stream| {
        let _heard = stream.read(&mut [0; 1024]);
        let _gone = stream.write_all(b"* OK IMAP4 ready\r\n");
    });
    let socket = text(peer.socket());
    let words = ["ctl", "--socket", socket, "info"];
    assert_refuses("atoll", words, FAILURE, &[socket, "not a machine's control socket"]);
}

#[test]
fn a_served_control_socket_is_refused_and_a_stale_one_replaced() {
    require!(AnyKvm);
    let mut machine = Controlled::start(None);
    let mode = fs::metadata(&machine.socket).expect("stat").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (socket, pid) = (text(&machine.socket).to_owned(), machine.vmm.pid().to_string());
    let second = Run::new().with("--control").with(&socket);
    second.is_refused(FAILURE, &[&socket, "already served", &pid]);
    assert_eq!(machine.json(&["info"])["state"], "running");

    machine.vmm.signal(nix::sys::signal::Signal::SIGKILL);
    machine.vmm.wait();
    assert!(machine.socket.exists(), "nobody was left to remove it");
    let third = Run::new().with("--grace").with("1").with("--control").with(&socket);
    let mut vmm = third.start();
    wait_for("the socket to be served", || UnixStream::connect(&socket).ok());
    assert_eq!(vmm.stop().code, 0);
    assert!(!machine.socket.exists());
}

#[test]
fn a_control_path_that_is_no_socket_is_refused_and_kept() {
    require!(AnyKvm);
    let run = Run::new();
    let path = run.scratch.write("precious", "data");
    run.with("--control").with(text(&path)).is_refused(FAILURE, &[text(&path), "not a socket"]);
    let long = format!("/{}", "x".repeat(108));
    Run::new().with("--control").with(&long).is_refused(USAGE, &["107", "--control"]);
}

#[test]
fn rude_clients_are_answered_and_the_machine_goes_on() {
    require!(AnyKvm);
    let machine = Controlled::start(None);
    assert!(machine.raw(b"\x16\x03\x01\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert!(machine.raw(&vec![b'x'; 1 << 20]).starts_with("HTTP/1.1 4"));
    let long = b"PUT /api/v1/vm.pause HTTP/1.1\r\nContent-Length: 999999\r\n\r\n";
    assert!(machine.raw(long).starts_with("HTTP/1.1 413 "));
    let delete = b"DELETE /api/v1/vm.info HTTP/1.1\r\nConnection: close\r\n\r\n";
    assert!(machine.raw(delete).starts_with("HTTP/1.1 405 "));
    // Many who say nothing, and one who is not let in for them.
    let idle: Vec<_> = (0..64).map(|_| UnixStream::connect(&machine.socket)).collect();
    assert!(machine.raw(b"GET /api/v1/vm.info HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 503 "));
    drop(idle);
    wait_for("a place", || (machine.ask(&["info"]).code == 0).then_some(()));
}

#[test]
fn a_service_manager_is_told_when_the_guest_runs_and_when_it_is_over() {
    require!(AnyKvm);
    let run = Run::new().with("--grace").with("1");
    let path = run.scratch.join("notify");
    let manager = UnixDatagram::bind(&path).expect("bind");
    manager.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    let mut command = Command::new(program::ours("atoll"));
    command.args(run.words()).env("NOTIFY_SOCKET", &path);
    let mut vmm = Process::spawn(command);
    let hear = || {
        let mut bytes = [0; 256];
        let count = manager.recv(&mut bytes).expect("a notification");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    assert_eq!(hear(), "READY=1\n");
    assert_eq!(vmm.stop().code, 0);
    assert_eq!(hear(), "STOPPING=1\n");
}

#[test]
fn a_control_socket_may_be_passed_by_a_service_manager() {
    require!(AnyKvm);
    let run = Run::new().with("--grace").with("1");
    let path = run.scratch.join("activated");
    let listener = UnixListener::bind(&path).expect("bind");
    // The manager's way: descriptor 3, and variables that name the process and the socket.
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=control; \
                  exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(program::ours("atoll")).args(run.words());
    command.stdin(std::os::fd::OwnedFd::from(listener));
    let mut vmm = Process::spawn_with_stdin(command);
    let info = wait_for("an answer", || {
        let words = ["ctl", "--socket", text(&path), "info", "--json"];
        let finished = atoll_tests::process::run("atoll", words);
        (finished.code == 0).then(|| json_of(&finished))
    });
    assert_eq!(info["pid"], vmm.pid());
    assert_eq!(vmm.stop().code, 0);
    assert!(path.exists(), "it is the service manager's");
}
