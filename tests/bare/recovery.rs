//! Real backends that die, and the guest's requests that are answered all the same.

use std::path::Path;
use std::time::{Duration, Instant};

use atoll_tests::backend::Backend;
use atoll_tests::image::Image;
use atoll_tests::procfs;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::AnyKvm;
use atoll_tests::scratch::Scratch;
use atoll_tests::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::{Random, Rig, from_environment};

#[test]
fn a_disk_answers_on_through_the_deaths_of_its_backend_and_is_never_reset() {
    require!(AnyKvm);
    let image = Image::blank(1 << 20);
    let mut backend = Backend::blk(&image, &[]);
    let mut rig = Rig::start(&[backend.socket()], "");
    rig.wait_for_answers(1);
    let mut random = Random::new();
    for _ in 0..from_environment("ATOLL_KILLS", 30) {
        std::thread::sleep(random.up_to(Duration::from_millis(30)));
        backend.kill();
        std::thread::sleep(random.up_to(Duration::from_millis(10)));
        backend.restart();
        rig.wait_for_answers(1);
    }
    assert_eq!(rig.resets(1), 0);
    rig.stop();
}

#[test]
fn a_disk_s_own_process_is_started_again_when_it_dies() {
    require!(AnyKvm);
    let mut rig = Rig::start(&[], "");
    for _ in 0..3 {
        rig.wait_for_answers(0);
        let before = children(&rig);
        let child = *before.first().expect("a backend");
        send(child, Signal::SIGKILL);
        wait_for("another backend", || {
            let now = children(&rig);
            (now.len() == 1 && now != before).then_some(())
        });
        rig.wait_for_answers(0);
    }
    assert_eq!(rig.resets(0), 0);
    rig.stop();
}

#[test]
fn a_backend_that_was_stopped_for_a_while_goes_on() {
    require!(AnyKvm);
    let image = Image::blank(1 << 20);
    let mut backend = Backend::blk(&image, &[]);
    let mut rig = Rig::start(&[backend.socket()], "");
    for _ in 0..3 {
        rig.wait_for_answers(1);
        backend.process().signal(Signal::SIGSTOP);
        std::thread::sleep(Duration::from_millis(300));
        rig.check_witness();
        backend.process().signal(Signal::SIGCONT);
        rig.wait_for_answers(1);
    }
    assert_eq!(rig.resets(1), 0);
    rig.stop();
}

#[test]
fn no_backend_outlives_the_vmm_even_when_it_is_killed() {
    require!(AnyKvm);
    let mut rig = Rig::start(&[], "");
    rig.wait_for_answers(0);
    let children = children(&rig);
    assert_eq!(children.len(), 1);
    rig.vmm.signal(Signal::SIGKILL);
    wait_for("the end of the backend", || children.iter().all(|pid| !lives(*pid)).then_some(()));
}

#[test]
fn a_vmm_that_comes_first_waits_for_its_backend_and_other_disks_do_not_answer_before() {
    require!(AnyKvm);
    let image = Image::blank(1 << 20);
    let mut backend = Backend::blk(&image, &[]);
    backend.kill();
    let mut rig = Rig::start(&[backend.socket()], "");
    rig.vmm.wait_to_say("waiting");
    assert_eq!(rig.lines_about("disk1").len(), 1, "it says so once");
    backend.restart();
    rig.wait_for_answers(1);
    rig.stop();
}

#[test]
fn a_running_disk_moves_to_another_process_and_back() {
    require!(AnyKvm);
    let image = Image::blank(1 << 20);
    let mut one = Backend::blk(&image, &[]);
    let mut two = Backend::blk(&image, &["--takeover"]);
    let mut rig = Rig::start(&[one.socket()], "");
    rig.wait_for_answers(1);
    for round in 0..10 {
        let to = if round % 2 == 0 { &two } else { &one };
        rig.ctl(&["device", "swap", "disk1", &format!("socket={}", to.socket().display())]);
        rig.wait_for_answers(1);
    }
    // It is on the first one again, and does not need the other.
    two.kill();
    rig.wait_for_answers(1);
    assert_eq!(rig.resets(1), 0);
    one.kill();
    rig.check_witness();
    rig.stop();
}

#[test]
fn a_swap_that_fails_leaves_the_disk_where_it_was() {
    require!(AnyKvm);
    let (image, taken) = (Image::blank(1 << 20), Image::blank(1 << 20));
    let one = Backend::blk(&image, &[]);
    let scratch = Scratch::new();
    let other = Backend::console(&scratch.join("terminal"));
    // It looks right until it has to start the rings.
    let _holder = Backend::blk(&taken, &[]);
    let late = Backend::blk(&taken, &["--takeover"]);
    let mut rig = Rig::start(&[one.socket()], "");
    rig.wait_for_answers(1);
    for socket in [Path::new("/nonexistent/socket"), other.socket(), late.socket()] {
        let start = Instant::now();
        let said =
            rig.ctl_refused(&["device", "swap", "disk1", &format!("socket={}", socket.display())]);
        assert!(said.contains("disk1"), "{said}");
        assert!(said.contains(&socket.display().to_string()), "{said}");
        assert!(start.elapsed() < Duration::from_secs(30), "{said}");
        rig.wait_for_answers(1);
    }
    assert_eq!(rig.resets(1), 0);
    rig.stop();
}

fn children(rig: &Rig) -> Vec<u32> {
    procfs::children(rig.vmm.pid()).into_keys().collect()
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal).expect("signal a backend");
}

/// Whether there is such a process, and it has not ended.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
