//! A /dev/kvm that is not there, may not be used, or cannot run the guest.

use std::process::Command;

use atoll_tests::payload;
use atoll_tests::program;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{AnyKvm, Program, Root};
use atoll_tests::scratch::Scratch;

use crate::refusal::{FAILURE, Run, assert_command_refuses};

/// `atoll run` in a mount namespace of its own, after the shell command `before`, by `way`.
fn in_other_dev(scratch: &Scratch, before: &str, way: &str) -> Command {
    let kernel = scratch.write("kernel", payload::kernel(payload::HALT));
    let script = format!(
        "mount -t tmpfs -o mode=755 tmpfs /dev && mknod -m 666 /dev/null c 1 3 && {before} && \
         exec {way} {} run --serial off --kernel {}",
        program::ours("atoll").display(),
        kernel.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    command
}

#[test]
fn no_kvm_is_named() {
    require!(Root, Program("unshare"));
    let command = in_other_dev(&Scratch::new(), "true", "");
    assert_command_refuses("atoll", command, FAILURE, &["/dev/kvm"]);
}

#[test]
fn a_kvm_that_may_not_be_used_is_named_with_the_way_out() {
    require!(Root, Program("unshare"), Program("setpriv"));
    let (scratch, way) = (Scratch::new(), "setpriv --bounding-set=-all --inh-caps=-all");
    let command = in_other_dev(&scratch, "touch /dev/kvm && chmod 0 /dev/kvm", way);
    assert_command_refuses("atoll", command, FAILURE, &["/dev/kvm", "permission", "group kvm"]);
}

#[test]
fn a_guest_that_faults_for_good_is_reported_with_vcpu_place_and_reason() {
    require!(AnyKvm);
    let run = Run::new().kernel(&payload::kernel(payload::TRIPLE_FAULT));
    run.is_refused(FAILURE, &["vCPU 0", "RIP", "triple fault"]);
}

#[test]
fn a_guest_that_kvm_cannot_run_is_reported_with_vcpu_place_and_reason() {
    require!(AnyKvm);
    let run = Run::new().kernel(&payload::kernel(payload::RUN_AWAY));
    run.is_refused(FAILURE, &["vCPU 0", "RIP 0xd0000000", "KVM_EXIT_INTERNAL_ERROR"]);
}
