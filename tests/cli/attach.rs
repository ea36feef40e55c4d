//! `atoll console`: a terminal on a console that a real `atoll-console` serves, and the keys by which to
//! leave. The guest is a driver in software, or halts.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atoll_driver::{ConsoleGuest, TIMEOUT};
use atoll_tests::process::Process;
use atoll_tests::requirement::Requirement::{AnyKvm, Program};
use atoll_tests::scratch::Scratch;
use atoll_tests::terminal::{Seated, Terminal};
use atoll_tests::{procfs, program, require, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::refusal::{FAILURE, Run, USAGE, assert_refuses};

/// A console's process and its guest.
struct Rig {
    guest: ConsoleGuest,
    process: Process,
    place: PathBuf,
    _scratch: Scratch,
}

impl Rig {
    /// `option` is `unix` or `pty`.
    fn start(option: &str) -> Self {
        let scratch = Scratch::new();
        let (socket, place) = (scratch.join("front-end"), scratch.join("console"));
        let args = [
            format!("--socket-path={}", socket.display()),
            format!("--{option}={}", place.display()),
        ];
        let process = Process::ours("atoll-console", args);
        wait_for("the console", || socket.exists().then_some(()));
        let guest = ConsoleGuest::attach(&socket, 1024, 16).expect("attach to the console");
        Self { guest, process, place, _scratch: scratch }
    }

    fn attach(&self, terminal: &Terminal) -> Seated {
        let seated = terminal.run(console().arg("--attach").arg(&self.place));
        wait_for("raw mode", || terminal.is_raw().then_some(()));
        seated
    }

    fn wait_size(&mut self, size: (u16, u16)) {
        while self.guest.size().expect("read the configuration") != size {
            self.guest.device.wait_config_change(TIMEOUT).expect("a change of the window");
        }
    }
}

fn console() -> Command {
    let mut command = Command::new(program::ours("atoll"));
    command.arg("console");
    command
}

/// Bytes that differ by place, so that none can be lost or doubled unseen.
fn pattern(places: Range<usize>) -> Vec<u8> {
    places.map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

#[test]
fn keys_are_the_guests_but_for_the_escape() {
    let terminal = Terminal::new(80, 25);
    let mut rig = Rig::start("unix");
    let mut seated = rig.attach(&terminal);
    rig.guest.print(b"login: ").expect("print");
    terminal.wait_shows("login: ");
    let hint = seated.stderr();
    assert!(hint.contains("Ctrl-] q leaves"), "{hint}");
    // Control-C, the prefix itself, a break, and what is somebody else's use of the prefix.
    terminal.press(b"root\r\x03\x1d\x1d\x1db\x1dx");
    let expected = b"root\r\x03\x1d\x0f\x1dx";
    assert_eq!(rig.guest.read(expected.len()).expect("keys"), expected);
    terminal.press(b"last\x1dqnobody's");
    assert_eq!(rig.guest.read(4).expect("keys"), b"last");
    assert!(seated.wait().success());
    assert!(seated.stderr().contains("left the console at"), "{}", seated.stderr());
}

#[test]
fn the_terminal_is_as_before_after_every_way_out() {
    let terminal = Terminal::new(80, 25);
    let before = terminal.settings();
    let rig = Rig::start("unix");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        let mut seated = rig.attach(&terminal);
        seated.signal(signal);
        assert!(seated.wait().success(), "{signal}");
        assert_eq!(terminal.settings(), before, "after {signal}");
    }
    let mut seated = rig.attach(&terminal);
    terminal.press(b"\x1dq");
    assert!(seated.wait().success());
    assert_eq!(terminal.settings(), before, "after the escape");

    let mut seated = rig.attach(&terminal);
    rig.process.signal(Signal::SIGKILL);
    assert!(seated.wait().success());
    assert_eq!(terminal.settings(), before, "after the console's end");
    assert!(seated.stderr().contains("is closed"), "{}", seated.stderr());
}

#[test]
fn a_person_may_leave_a_guest_that_reads_no_keys() {
    let terminal = Terminal::new(80, 25);
    let rig = Rig::start("unix");
    let mut seated = rig.attach(&terminal);
    // More than the guest has buffers for.
    for _ in 0..40 {
        terminal.press(&[b'x'; 1024]);
    }
    terminal.press(b"\x1dq");
    assert!(seated.wait().success());
}

#[test]
fn the_guests_window_follows_the_terminals() {
    for option in ["unix", "pty"] {
        let terminal = Terminal::new(101, 31);
        let mut rig = Rig::start(option);
        let mut seated = rig.attach(&terminal);
        rig.wait_size((101, 31));
        for round in 1..=10 {
            terminal.resize(101 + round, 31 + round);
            rig.wait_size((101 + round, 31 + round));
        }
        // No key is made of it.
        terminal.press(b"key\x1dq");
        assert_eq!(rig.guest.read(3).expect("keys"), b"key", "{option}");
        assert!(seated.wait().success());
        // Who comes next has another window.
        let other = Terminal::new(60, 20);
        let _seated = rig.attach(&other);
        rig.wait_size((60, 20));
    }
}

#[test]
fn a_hundred_attachments_during_output_lose_and_double_nothing() {
    let terminal = Terminal::new(80, 25);
    let mut rig = Rig::start("unix");
    let place = rig.place.clone();
    let stop = AtomicBool::new(false);
    let printed = std::thread::scope(|scope| {
        let printer = scope.spawn(|| {
            let mut printed = 0;
            while !stop.load(Ordering::Relaxed) {
                // All the time, but never more than is kept while nobody is attached.
                if printed < terminal.shown().len() + 100_000 {
                    rig.guest.print(&pattern(printed..printed + 2000)).expect("print");
                    printed += 2000;
                } else {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            printed
        });
        for round in 0..100 {
            let before = terminal.shown().len();
            let mut seated = terminal.run(console().arg("--attach").arg(&place));
            // Before, keys would be echoed.
            wait_for("raw mode", || terminal.is_raw().then_some(()));
            wait_for("output", || (terminal.shown().len() > before + 7 * round).then_some(()));
            terminal.press(b"\x1dq");
            assert!(seated.wait().success(), "{}", seated.stderr());
        }
        stop.store(true, Ordering::Relaxed);
        printer.join().expect("the guest printed")
    });
    let mut seated = terminal.run(console().arg("--attach").arg(&place));
    wait_for("raw mode", || terminal.is_raw().then_some(()));
    rig.guest.print(b"the end").expect("print");
    wait_for("the last output", || terminal.shown().ends_with(b"the end").then_some(()));
    terminal.press(b"\x1dq");
    assert!(seated.wait().success());
    let mut expected = pattern(0..printed);
    expected.extend(b"the end");
    let (shown, printed) = (terminal.shown().clone(), expected.len());
    let same = shown.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    let around = shown.get(same..(same + 40).min(shown.len())).unwrap_or_default();
    assert_eq!((same, shown.len()), (printed, printed), "it goes on with {around:x?}");
}

#[test]
fn tmux_shows_the_guest_and_passes_on_keys_and_sizes() {
    require!(Program("tmux"));
    let mut rig = Rig::start("unix");
    let server = Tmux(Scratch::new());
    let tmux = |words: &[&str]| server.tell(words);
    let command = format!(
        "{} console --attach {}; echo left with $?; sleep 1000",
        program::ours("atoll").display(),
        rig.place.display()
    );
    tmux(&["new-session", "-d", "-x", "90", "-y", "33", &command]);
    let shows = |text: &str| {
        wait_for(text, || tmux(&["capture-pane", "-p"]).contains(text).then_some(()));
    };
    shows("Ctrl-] q leaves");
    let pane = || {
        let size = tmux(&["display-message", "-p", "#{pane_width} #{pane_height}"]);
        let mut numbers = size.split_whitespace().map(|number| number.parse().expect("a number"));
        (numbers.next().expect("columns"), numbers.next().expect("rows"))
    };
    assert_eq!(pane().0, 90);
    rig.wait_size(pane());
    rig.guest.print(b"\x1b[2J\x1b[5;10Hin the fifth row").expect("print");
    shows("in the fifth row");
    let screen = tmux(&["capture-pane", "-p"]);
    assert_eq!(screen.lines().nth(4), Some("         in the fifth row"), "{screen}");
    tmux(&["send-keys", "-l", "uname"]);
    tmux(&["send-keys", "Enter", "Up", "C-c"]);
    let keys = b"uname\r\x1b[A\x03";
    assert_eq!(rig.guest.read(keys.len()).expect("keys"), keys);
    tmux(&["resize-window", "-x", "120", "-y", "40"]);
    assert_eq!(pane().0, 120);
    rig.wait_size(pane());
    tmux(&["send-keys", "C-]", "q"]);
    shows("left with 0");
}

/// A server of tmux, which ends with it.
struct Tmux(Scratch);

impl Tmux {
    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.env_remove("TMUX").env("TERM", "screen").args(["-f", "/dev/null", "-S"]);
        command.arg(self.0.join("tmux")).args(words).output().expect("run tmux")
    }

    /// What tmux answers.
    fn tell(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {words:?}: {complaint}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ended = self.run(&["kill-server"]);
    }
}

/// A machine that halts, with a control socket.
fn machine(options: &[&str]) -> (Process, PathBuf, Run) {
    let run = Run::new();
    let control = run.scratch.join("control");
    let mut run = run.with("--grace").with("1").with("--control").with(&control.to_string_lossy());
    for option in options {
        run = run.with(option);
    }
    let vmm = run.start();
    wait_runs(&control);
    (vmm, control, run)
}

/// Waits until the machine with this control socket runs.
fn wait_runs(control: &Path) {
    wait_for("the machine", || {
        let info = atoll_tests::process::run("atoll", ["ctl", "--socket", &text(control), "info"]);
        info.stdout.contains("running").then_some(())
    });
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn a_machines_console_is_found_and_followed_until_the_machine_ends() {
    require!(AnyKvm);
    let scratch = Scratch::new();
    let option = format!("socket={}", text(&scratch.join("tty")));
    let (mut vmm, control, _run) = machine(&["--console", &option]);
    let terminal = Terminal::new(80, 25);
    let mut seated = terminal.run(console().arg(&control));
    wait_for("raw mode", || terminal.is_raw().then_some(()));
    assert!(seated.stderr().contains("attached to console console0 of"), "{}", seated.stderr());
    // Its process is started anew, and the terminal is connected to the new one: it has the listening
    // socket then, and one more.
    let process = || procfs::children(vmm.pid()).into_keys().next();
    let first = wait_for("the console's process", process);
    kill(Pid::from_raw(i32::try_from(first).expect("a pid")), Signal::SIGKILL).expect("kill");
    let second = wait_for("another process", || process().filter(|&pid| pid != first));
    let connected = || {
        let table = std::fs::read_to_string(format!("/proc/{second}/net/unix")).ok()?;
        let tty = text(&scratch.join("tty"));
        (table.lines().filter(|line| line.ends_with(&tty)).count() > 1).then_some(())
    };
    wait_for("the terminal at the new process", connected);
    assert_eq!(vmm.stop().code, 0);
    assert!(seated.wait().success());
    assert!(seated.stderr().contains("as its machine has ended"), "{}", seated.stderr());
}

#[test]
fn at_the_machines_own_terminal_the_escape_is_what_control_c_is_elsewhere() {
    require!(AnyKvm);
    for option in [["--console", "stdio"], ["--serial", "stdio"]] {
        let run = Run::new().with("--grace").with("1").with(option[0]).with(option[1]);
        let control = run.scratch.join("control");
        let run = run.with("--control").with(&text(&control));
        let terminal = Terminal::new(80, 25);
        let before = terminal.settings();
        let mut command = Command::new(program::ours("atoll"));
        let mut seated = terminal.run(command.args(run.words()).env("RUST_LOG", "info"));
        wait_for("raw mode", || terminal.is_raw().then_some(()));
        wait_for("the hint", || seated.stderr().contains("Ctrl-] q leaves").then_some(()));
        wait_runs(&control);
        terminal.press(b"\x03\x1dq");
        assert_eq!(seated.wait().code(), Some(0), "{option:?}: {}", seated.stderr());
        assert!(seated.stderr().contains("power button"), "{}", seated.stderr());
        assert_eq!(terminal.settings(), before, "{option:?}");
    }
}

#[test]
fn a_console_that_can_t_be_had_is_named_with_the_way_to_one() {
    let refuses = |words: &[&str], code, sentence: &[&str]| {
        let words = ["console"].iter().chain(words).copied();
        assert_refuses("atoll", words, code, sentence);
    };
    refuses(&[], USAGE, &["control socket", "ATOLL_CONTROL", "--attach=PATH"]);
    refuses(&["web"], FAILURE, &["no machine `web`", "/run/atoll/web/control"]);
    refuses(&["/nonexistent/c"], FAILURE, &["/nonexistent/c", "No such file"]);
    refuses(&["--attach", "/nonexistent/t"], FAILURE, &["no console at /nonexistent/t"]);
    refuses(&["--attach", "/etc/passwd"], FAILURE, &["/etc/passwd", "neither a socket nor"]);
    refuses(&["c", "--attach", "t"], USAGE, &["--attach"]);
}

#[test]
fn a_machine_without_a_console_to_attach_to_says_why() {
    require!(AnyKvm);
    let (_vmm, control, _run) = machine(&[]);
    let control = text(&control);
    let refuses = |words: &[&str], sentence: &[&str]| {
        let words = ["console", &control].into_iter().chain(words.iter().copied());
        assert_refuses("atoll", words, FAILURE, sentence);
    };
    refuses(&[], &[&control, "started no console", "--attach=PATH"]);
    let log = Scratch::new();
    let option = format!("file={}", text(&log.join("log")));
    let (_vmm, control, _run) = machine(&["--console", &option, "--console", "stdio,id=c"]);
    let control = text(&control);
    let refuses = |words: &[&str], sentence: &[&str]| {
        let words = ["console", &control].into_iter().chain(words.iter().copied());
        assert_refuses("atoll", words, FAILURE, sentence);
    };
    refuses(&[], &["console console0", "written to the file", "log"]);
    refuses(&["--device", "c"], &["console c", "--console socket=PATH"]);
    refuses(&["--device", "d"], &["no console d", "console console0, console c"]);
}

#[test]
fn a_terminal_without_a_link_is_found_by_what_its_process_says() {
    require!(AnyKvm);
    let (vmm, control, _run) = machine(&["--console", "pty,port=p:pty"]);
    let path = |port: Value| {
        let info = atoll_tests::process::run(
            "atoll",
            ["ctl", "--socket", &text(&control), "info", "--json"],
        );
        let info: Value = serde_json::from_str(&info.stdout).expect("JSON");
        let consoles = info["consoles"].as_array().expect("consoles").clone();
        let console = consoles.into_iter().find(|console| console["port"] == port);
        console.expect("the console")["path"].as_str().map(PathBuf::from)
    };
    let (own, port) = (path(Value::Null).expect("a name"), path("p".into()).expect("a name"));
    assert!(own.starts_with("/dev/pts") && port.starts_with("/dev/pts") && own != port);
    let terminal = Terminal::new(80, 25);
    for words in [&[][..], &["--port", "p"]] {
        let mut seated = terminal.run(console().arg(&control).args(words));
        wait_for("raw mode", || terminal.is_raw().then_some(()));
        assert!(seated.stderr().contains("console console0 of"), "{}", seated.stderr());
        terminal.press(b"\x1dq");
        assert!(seated.wait().success());
    }
    // The next process makes another, and who is attached goes on there.
    let seated = terminal.run(console().arg(&control));
    let has_open = |name: &Path| {
        let files = std::fs::read_dir(format!("/proc/{}/fd", seated.pid())).expect("open files");
        let mut names = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        names.any(|open| open == name)
    };
    wait_for("the terminal at the console", || has_open(&own).then_some(()));
    let process = || procfs::children(vmm.pid()).into_keys().next();
    let first = wait_for("the console's process", process);
    kill(Pid::from_raw(i32::try_from(first).expect("a pid")), Signal::SIGKILL).expect("kill");
    wait_for("another process", || process().filter(|&pid| pid != first));
    let next = wait_for("its terminal's name", || path(Value::Null));
    wait_for("the terminal at the next one", || has_open(&next).then_some(()));
}
