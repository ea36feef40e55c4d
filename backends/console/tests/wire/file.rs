//! `--file`: a log that grows.

use std::fs;

use crate::rig::{Rig, eventually, pattern};

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
