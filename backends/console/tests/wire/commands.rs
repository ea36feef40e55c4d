//! What is wrong with a command line or a path is one sentence, with its way out.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use atoll_driver::Process;

use crate::rig::command;

const FAILED: i32 = 1;
const USAGE: i32 = 2;

fn fails(dir: &Path, args: &[&str], code: i32, sentence: &str) {
    let mut command = command(dir, args);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (status, stderr) = Process::run(&mut command).unwrap().wait().unwrap();
    assert_eq!(status.code(), Some(code), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    assert!(stderr.starts_with("atoll-console: "), "{stderr}");
    assert!(stderr.contains(sentence), "'{sentence}' in: {stderr}");
}

#[test]
fn wrong_options_are_named() {
    let dir = tempfile::tempdir().unwrap();
    fails(dir.path(), &[], USAGE, "--stdio");
    fails(dir.path(), &["--stdio", "--file=x"], USAGE, "--file");
    fails(dir.path(), &["--pty", "--unix=x"], USAGE, "--unix");
    fails(dir.path(), &["--sdtio"], USAGE, "--stdio");
}

#[test]
fn ports_of_one_name_and_more_than_there_can_be_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = format!("--file={}", dir.path().join("log").display());
    let port = |name: &str| format!("--port={name}:file={}", dir.path().join(name).display());
    let (same, other) = (port("same"), port("other"));
    fails(dir.path(), &[&file, &same, &other, &same], FAILED, "two ports are named same");
    let many = Vec::from_iter((0..31).map(|number| port(&format!("port{number}"))));
    let args = Vec::from_iter([&file].into_iter().chain(&many).map(String::as_str));
    fails(dir.path(), &args, FAILED, "31 named ports are too many; a console has at most 30");
}

#[test]
fn a_path_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let option = |name: &str, at: &str| format!("--{name}={}", path(at).display());
    fs::write(path("taken"), "precious").unwrap();
    let _served = UnixListener::bind(path("served")).unwrap();
    fails(dir.path(), &[&option("file", "no/such")], FAILED, "no/such");
    fails(dir.path(), &[&option("file", "")], FAILED, &dir.path().display().to_string());
    fails(dir.path(), &[&option("unix", "no/such")], FAILED, "no/such");
    fails(dir.path(), &[&option("unix", "taken")], FAILED, "taken");
    fails(dir.path(), &[&option("unix", "served")], FAILED, "served");
    fails(dir.path(), &[&option("unix", &"x".repeat(120))], FAILED, "xxxx");
    fails(dir.path(), &[&option("pty", "taken")], FAILED, "taken");
    fails(dir.path(), &[&option("pty", "no/such")], FAILED, "no/such");
    assert_eq!(fs::read(path("taken")).unwrap(), b"precious", "nothing is lost");
}

#[test]
fn a_pipe_that_nobody_reads_is_named_instead_of_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let file = format!("--file={}", path.display());
    let sentence = format!("{} is a pipe that nobody reads; start its reader", path.display());
    fails(dir.path(), &[&file], FAILED, &sentence);
    let log = format!("--file={}", dir.path().join("log").display());
    let port = format!("--port=log:file={}", path.display());
    fails(dir.path(), &[&log, &port], FAILED, &sentence);
}

#[test]
fn help_and_capabilities_are_printed() {
    let output = |arg: &str| {
        Command::new(env!("CARGO_BIN_EXE_atoll-console")).arg(arg).output().unwrap().stdout
    };
    let help = String::from_utf8(output("--help")).unwrap();
    assert!(help.contains("Examples:") && help.contains("--pty"), "{help}");
    let capabilities: serde_json::Value =
        serde_json::from_slice(&output("--print-capabilities")).unwrap();
    assert_eq!(capabilities["type"], "console");
}
