//! What is installed holds together: systemd takes the units and finds them confined, QEMU's
//! management finds the descriptions, and every program has its pages.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a test says what went wrong as it does")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 4] = ["atoll", "atoll-blk", "atoll-net", "atoll-console"];

/// The greatest exposure, of 100, that a unit of ours may have.
const EXPOSURE: &str = "20";

#[test]
fn systemd_takes_every_unit_without_a_word() {
    if !systemd_analyze_is_here("systemd_takes_every_unit_without_a_word") {
        return;
    }
    // The programs need not be installed here: any that is stands for them.
    let folder = tempfile::tempdir().expect("make a folder");
    for unit in files("systemd") {
        let text = fs::read_to_string(&unit).expect("read a unit");
        let text: Vec<_> = text
            .lines()
            .map(|line| match line.strip_prefix("ExecStart=/usr/bin/") {
                Some(command) => {
                    let arguments = command.split_once(' ').map_or("", |(_, arguments)| arguments);
                    format!("ExecStart=/bin/true {arguments}")
                }
                None => line.to_owned(),
            })
            .collect();
        let name = unit.file_name().expect("a unit has a name");
        fs::write(folder.path().join(name), text.join("\n") + "\n").expect("write the unit");
    }
    for unit in files("systemd") {
        let name = unit.file_name().expect("a unit has a name").to_string_lossy();
        let instance = folder.path().join(name.replace('@', "@web"));
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=one"])
            .arg(&instance)
            .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display()))
            .output()
            .expect("run systemd-analyze");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
    }
}

#[test]
fn systemd_finds_every_service_confined() {
    if !systemd_analyze_is_here("systemd_finds_every_service_confined") {
        return;
    }
    for unit in files("systemd").iter().filter(|unit| unit.extension() == Some("service".as_ref()))
    {
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--threshold", EXPOSURE])
            .arg(unit)
            .output()
            .expect("run systemd-analyze");
        let said = String::from_utf8_lossy(&output.stdout);
        let verdict = said.lines().last().unwrap_or_default();
        assert!(output.status.success(), "{}: {verdict}", unit.display());
    }
}

#[test]
fn every_backend_has_a_description_for_qemu() {
    for (program, kind) in [("blk", "block"), ("net", "net"), ("console", "console")] {
        let path = source("qemu").join(format!("50-atoll-{program}.json"));
        let text = fs::read_to_string(&path).expect("read a description");
        let description: serde_json::Value = serde_json::from_str(&text).expect("read it as JSON");
        // QEMU's docs/interop/vhost-user.json, VhostUserBackend: these and optional tags.
        let fields = description.as_object().expect("a description is an object");
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["binary", "description", "type"]);
        assert_eq!(description["type"], kind);
        assert_eq!(description["binary"], format!("/usr/bin/atoll-{program}"));
    }
}

#[test]
fn every_program_has_a_man_page_and_completions() {
    let share = tempfile::tempdir().expect("make a folder");
    let status = Command::new(env!("CARGO_BIN_EXE_atoll-dist"))
        .arg(share.path())
        .status()
        .expect("run atoll-dist");
    assert!(status.success());
    for program in PROGRAMS {
        let page = read(share.path(), &format!("man/man1/{program}.1"));
        assert!(page.contains(".SH OPTIONS") || page.contains(".SH SUBCOMMANDS"), "{page}");
        for completions in [
            format!("bash-completion/completions/{program}"),
            format!("zsh/vendor-completions/_{program}"),
            format!("fish/vendor_completions.d/{program}.fish"),
        ] {
            assert!(read(share.path(), &completions).contains("help"), "{completions}");
        }
    }
    assert!(read(share.path(), "man/man1/atoll-run.1").contains("kernel"));
}

fn systemd_analyze_is_here(test: &str) -> bool {
    let here = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !here {
        println!("skipped: {test}: there is no systemd-analyze");
    }
    here
}

fn source(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(source(folder)).expect("list a folder");
    entries.map(|entry| entry.expect("list a folder").path()).collect()
}

fn read(share: &Path, path: &str) -> String {
    fs::read_to_string(share.join(path)).expect(path)
}
