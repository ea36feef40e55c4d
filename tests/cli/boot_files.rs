//! Kernels and initrds that cannot be booted.

use atoll_tests::payload;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::AnyKvm;

use crate::refusal::{FAILURE, Run, assert_refuses};

#[test]
fn a_kernel_that_is_missing_or_a_directory_is_named() {
    require!(AnyKvm);
    assert_refuses("atoll", ["run", "--kernel", "/nonexistent/k"], FAILURE, &["/nonexistent/k"]);
    assert_refuses("atoll", ["run", "--kernel", "/etc"], FAILURE, &["/etc", "not a regular file"]);
}

#[test]
fn a_file_that_is_no_kernel_is_named() {
    require!(AnyKvm);
    for contents in [&b""[..], b"#!/bin/sh\n", &[0; 4096]] {
        Run::new().kernel(contents).is_refused(FAILURE, &["/kernel", "not a kernel"]);
    }
}

#[test]
fn a_truncated_kernel_is_named() {
    require!(AnyKvm);
    let whole = payload::kernel(payload::HALT);
    let half = &whole[..whole.len() - 1];
    Run::new().kernel(half).is_refused(FAILURE, &["/kernel", "truncated"]);
}

#[test]
fn a_kernel_without_a_pvh_entry_is_named() {
    require!(AnyKvm);
    let mut kernel = payload::kernel(payload::HALT);
    let name = kernel.windows(4).position(|bytes| bytes == b"Xen\0").expect("the note's name");
    kernel[name] = b'Z';
    Run::new().kernel(&kernel).is_refused(FAILURE, &["/kernel", "PVH"]);
}

#[test]
fn a_kernel_too_large_for_the_memory_is_named() {
    require!(AnyKvm);
    let kernel = payload::elf(payload::HALT, 1 << 30);
    let run = Run::new().kernel(&kernel).with("--memory").with("128M");
    run.is_refused(FAILURE, &["/kernel", "too large", "128 MiB", "--memory"]);
}

#[test]
fn an_initrd_that_is_missing_empty_or_too_large_is_named() {
    require!(AnyKvm);
    Run::new().with("--initrd").with("/nonexistent/i").is_refused(FAILURE, &["/nonexistent/i"]);

    let run = Run::new();
    let initrd = run.scratch.write("initrd", "").display().to_string();
    run.with("--initrd").with(&initrd).is_refused(FAILURE, &[&initrd, "empty"]);

    let run = Run::new().with("--memory").with("128M");
    let path = run.scratch.write("initrd", "");
    let initrd = path.display().to_string();
    let file = std::fs::File::options().write(true).open(&path).expect("open the initrd");
    file.set_len(1 << 30).expect("make the initrd large");
    run.with("--initrd").with(&initrd).is_refused(FAILURE, &[&initrd, "too large", "--memory"]);
}

#[test]
fn a_command_line_beyond_the_limit_is_refused() {
    require!(AnyKvm);
    let words = "x".repeat(70_000);
    Run::new().with("--cmdline").with(&words).is_refused(FAILURE, &["command line", "70000"]);
}
