//! What is wrong with a command line or a TAP is one sentence, with its way out.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use atoll_driver::Process;

use crate::network;

const FAILED: i32 = 1;
const USAGE: i32 = 2;

fn fails(command: &mut Command, code: i32, sentence: &str) {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (status, stderr) = Process::run(command).unwrap().wait().unwrap();
    assert_eq!(status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    assert!(stderr.starts_with("atoll-net: "), "{stderr}");
    assert!(stderr.contains(sentence), "'{sentence}' in: {stderr}");
}

fn net(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll-net"));
    command.arg("--socket-path=/tmp/atoll-net-never.sock").args(args);
    command
}

fn give_up_net_admin(command: &mut Command) {
    let give_up = || {
        const CAP_NET_ADMIN: libc::c_ulong = 12;
        // SAFETY: a system call with numbers.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0) };
        if dropped == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes one system call.
    unsafe { command.pre_exec(give_up) };
}

#[test]
fn wrong_options_are_named() {
    let cases: [(&[&str], &str); 15] = [
        (&[], "--tap"),
        (&["--tap=tap0", "--tap-fd=3"], "--tap-fd"),
        (&["--tap=tap0", "--mac=nonsense"], "six pairs of hexadecimal digits"),
        (&["--tap=tap0", "--mac=01:00:5e:00:00:01"], "a group's address"),
        (&["--tap=tap0", "--mtu=67"], "67 is not in 68..=65535"),
        (&["--tap=tap0", "--mtu=65536"], "65536 is not in 68..=65535"),
        (&["--tab=tap0"], "--tap"),
        (&["--tap=tap0", "--bridge=br0"], "--bridge"),
        (&["--macvtap=mv0", "--bridge=br0"], "--macvtap"),
        (&["--tap=tap0", "--queue-pairs=0"], "0 is not in 1..=127"),
        (&["--tap=tap0", "--queue-pairs=128"], "128 is not in 1..=127"),
        (&["--user-net", "--queue-pairs=2"], "--queue-pairs"),
        (&["--user-net", "--tap=tap0"], "--user-net"),
        (&["--user-net", "--hostfwd=2222:22"], "such as tcp:2222:22"),
        (&["--tap=tap0", "--hostfwd=tcp:2222:22"], "--hostfwd"),
    ];
    for (args, sentence) in cases {
        fails(&mut net(args), USAGE, sentence);
    }
}

#[test]
fn a_tap_that_is_missing_or_impossible_is_named() {
    fails(&mut net(&["--tap=atoll-nowhere"]), FAILED, "TAP atoll-nowhere does not exist");
    fails(&mut net(&["--tap=much-too-long-name"]), FAILED, "'much-too-long-name' cannot be");
    fails(&mut net(&["--tap-fd=77"]), FAILED, "--tap-fd=77: there is no such descriptor");
    fails(&mut net(&["--tap-fd=0"]), FAILED, "--tap-fd=0 is not a TAP");
}

#[test]
fn a_passt_that_is_missing_is_named() {
    fails(net(&["--user-net"]).env("PATH", "/nonexistent"), FAILED, "install the package passt");
}

#[test]
fn a_passt_that_ends_again_and_again_is_complained_of_once() {
    let dir = tempfile::tempdir().unwrap();
    let (passt, lives) = (dir.path().join("passt"), dir.path().join("lives"));
    let script = format!(
        "#!/bin/sh\necho life >> {0}\n[ $(wc -l < {0}) -gt 3 ] && echo other words >&2 || echo no route >&2\nexit 1\n",
        lives.display()
    );
    // Not written by this process: a child of another test's might hold it open for writing, and
    // then it can't be started.
    let write = format!("printf %s \"$0\" > {0} && chmod +x {0}", passt.display());
    assert!(Command::new("sh").args(["-c", &write, &script]).status().unwrap().success());
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let socket = format!("--socket-path={}", dir.path().join("net.sock").display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll-net"));
    command.args([&socket, "--user-net"]).env("PATH", path).stdin(Stdio::null());
    let mut process = Process::run(&mut command).unwrap();
    process.wait_for_log("other words").unwrap();
    let (_, stderr) = process.terminate().unwrap();
    assert_eq!(stderr.matches("is started again: no route").count(), 1, "{stderr}");
}

#[test]
fn an_interface_that_is_no_tap_is_named() {
    if network::enter().is_some() {
        fails(&mut net(&["--tap=lo"]), FAILED, "interface lo is not a TAP");
        network::ip("tuntap add dev tun0 mode tun");
        fails(&mut net(&["--tap=tun0"]), FAILED, "interface tun0 is not a TAP");
    }
}

#[test]
fn a_tap_of_one_queue_is_named_where_several_are_asked_for() {
    if network::enter().is_some() {
        let sentence = "TAP tap0 has a single queue; make it with `ip tuntap add dev tap0 mode tap \
                        multi_queue`";
        fails(&mut net(&["--tap=tap0", "--queue-pairs=4"]), FAILED, sentence);
        fails(&mut net(&["--tap=lo", "--queue-pairs=4"]), FAILED, "interface lo is not a TAP");
    }
}

#[test]
fn a_bridge_that_is_missing_or_none_is_named() {
    if network::enter().is_some() {
        fails(&mut net(&["--bridge=br0"]), FAILED, "make it with `ip link add br0 type bridge`");
        fails(&mut net(&["--bridge=lo"]), FAILED, "interface lo is not a bridge");
        network::ip("link add br0 type bridge");
        let mut command = net(&["--bridge=br0"]);
        give_up_net_admin(&mut command);
        fails(&mut command, FAILED, "making a TAP for bridge br0 takes CAP_NET_ADMIN");
        fails(&mut net(&["--bridge=br0", "--mtu=65535"]), FAILED, "cannot have an MTU of 65535");
    }
}

#[test]
fn a_macvtap_that_is_missing_or_none_is_named() {
    if network::enter().is_some() {
        fails(&mut net(&["--macvtap=mv0"]), FAILED, "interface mv0 does not exist; make it with");
        fails(&mut net(&["--macvtap=lo"]), FAILED, "interface lo is not a macvtap");
    }
}

#[test]
fn a_tap_in_use_is_named() {
    if network::enter().is_some() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("net.sock");
        let args = [format!("--socket-path={}", socket.display()), "--tap=tap0".into()];
        let _first = Process::spawn(env!("CARGO_BIN_EXE_atoll-net"), args).unwrap();
        let deadline = std::time::Instant::now() + atoll_driver::TIMEOUT;
        while !socket.exists() && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        fails(&mut net(&["--tap=tap0"]), FAILED, "TAP tap0 is in use by another process");
    }
}

#[test]
fn an_inherited_queue_of_another_mode_or_of_another_tap_is_named() {
    use libc::{IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_TUN, IFF_VNET_HDR};
    if network::enter().is_none() {
        return;
    }
    let good = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    let cases = [
        ("tun0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, "without IFF_TAP, so it is a TUN"),
        ("bare0", IFF_TAP | IFF_NO_PI, "without IFF_VNET_HDR"),
    ];
    // Another name each time, as a child of another test's may keep one a little longer.
    for (name, flags, sentence) in cases {
        let queue = network::queue_of(name, flags);
        fails(&mut net(&[&format!("--tap-fd={}", queue.as_raw_fd())]), FAILED, sentence);
    }
    for (names, flags, sentence) in [
        (["one0", "one1"], good, "without IFF_MULTI_QUEUE, which several queues take"),
        (["two0", "two1"], good | IFF_MULTI_QUEUE, "is of another TAP than the first one"),
    ] {
        let queues = names.map(|name| network::queue_of(name, flags));
        let args = queues.each_ref().map(|queue| format!("--tap-fd={}", queue.as_raw_fd()));
        fails(&mut net(&args.each_ref().map(String::as_str)), FAILED, sentence);
    }
}

#[test]
fn a_tap_of_another_user_is_named() {
    if network::enter().is_some() {
        network::ip("tuntap add dev tap1 mode tap user 12345");
        let mut command = net(&["--tap=tap1"]);
        give_up_net_admin(&mut command);
        fails(&mut command, FAILED, "attaching to TAP tap1 is not permitted");
    }
}

#[test]
fn help_and_capabilities_are_printed() {
    let output =
        |arg: &str| Command::new(env!("CARGO_BIN_EXE_atoll-net")).arg(arg).output().unwrap();
    let help = String::from_utf8(output("--help").stdout).unwrap();
    assert!(help.contains("Examples:") && help.contains("--tap-fd"), "{help}");
    let capabilities: serde_json::Value =
        serde_json::from_slice(&output("--print-capabilities").stdout).unwrap();
    assert_eq!(capabilities["type"], "net");
}

#[test]
fn a_place_for_a_socket_that_is_taken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (taken, file) = (dir.path().join("taken"), dir.path().join("file"));
    let _listener = std::os::unix::net::UnixListener::bind(&taken).unwrap();
    std::fs::write(&file, "precious").unwrap();
    let serve = |path: &std::path::Path| net(&[&format!("--stream-server={}", path.display())]);
    fails(&mut serve(&taken), FAILED, "taken is already served by process");
    fails(&mut serve(&file), FAILED, "file exists and is not a socket; give another path or");
    fails(&mut serve(&dir.path().join("no/where")), FAILED, "cannot listen on the socket");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[test]
fn a_datagram_socket_that_is_in_use_is_named_and_stays_its_owners() {
    let dir = tempfile::tempdir().unwrap();
    let taken = dir.path().join("taken");
    let owner = UnixDatagram::bind(&taken).unwrap();
    let path = taken.display().to_string();
    fails(&mut net(&["--dgram", &path, "/nowhere"]), FAILED, "taken: Address already in use");
    UnixDatagram::unbound().unwrap().send_to(b"still here", &taken).unwrap();
    let mut heard = [0; 10];
    assert_eq!(owner.recv(&mut heard).unwrap(), 10);
    assert_eq!(&heard, b"still here");
}
