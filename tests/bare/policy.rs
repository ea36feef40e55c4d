//! What becomes of a machine whose disk has lost its backend, as its `on-disconnect` says.

use std::time::Duration;

use atoll_tests::backend::Backend;
use atoll_tests::image::Image;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::AnyKvm;

use crate::rig::Rig;

/// A guest whose second disk has answered, and then lost its backend.
fn bereft(policy: &str) -> (Backend, Image, Rig) {
    let image = Image::blank(1 << 20);
    let mut backend = Backend::blk(&image, &[]);
    let mut rig = Rig::start(&[backend.socket()], &format!(",on-disconnect={policy}"));
    rig.wait_for_answers(1);
    backend.kill();
    (backend, image, rig)
}

/// Whether the witness says nothing for some time.
fn stands_still(rig: &Rig) -> bool {
    let before = rig.answered(0);
    std::thread::sleep(Duration::from_millis(500));
    // What was under way when it was stopped may have been said since.
    rig.answered(0) <= before + 2
}

/// Whether the machine says that a device has paused it.
fn is_paused(rig: &Rig) -> bool {
    let info = rig.ctl(&["info", "--json"]);
    info.contains("\"paused\"") && info.contains("device disk1")
}

#[test]
fn wait_lets_everybody_else_go_on() {
    require!(AnyKvm);
    let (mut backend, _image, mut rig) = bereft("wait");
    rig.check_witness();
    backend.restart();
    rig.wait_for_answers(1);
    assert_eq!(rig.resets(1), 0);
    rig.stop();
}

#[test]
fn pause_stops_the_guest_until_the_backend_is_back() {
    require!(AnyKvm);
    let (mut backend, _image, mut rig) = bereft("pause");
    atoll_tests::wait_for("the machine to pause", || is_paused(&rig).then_some(()));
    assert!(stands_still(&rig), "the guest runs on");
    assert!(rig.vmm.is_running());
    backend.restart();
    rig.wait_for_answers(1);
    rig.check_witness();
    assert_eq!(rig.resets(1), 0);
    rig.stop();
}

#[test]
fn reset_has_the_guest_start_the_device_anew() {
    require!(AnyKvm);
    let (mut backend, _image, mut rig) = bereft("reset");
    atoll_tests::wait_for("the guest to reset its disk", || (rig.resets(1) == 1).then_some(()));
    rig.check_witness();
    backend.restart();
    rig.wait_for_answers(1);
    assert_eq!(rig.resets(1), 1);
    rig.stop();
}

#[test]
fn stop_ends_the_machine_with_one_sentence() {
    require!(AnyKvm);
    let (backend, _image, mut rig) = bereft("stop");
    assert_stopped(&backend, &mut rig);
}

#[track_caller]
fn assert_stopped(backend: &Backend, rig: &mut Rig) {
    let finished = rig.vmm.wait();
    assert_eq!(finished.code, 1, "{}", finished.stderr);
    let sentences: Vec<_> = finished.stderr.lines().filter(|l| l.starts_with("atoll: ")).collect();
    assert_eq!(sentences.len(), 1, "{}", finished.stderr);
    for word in ["disk1", &backend.socket().display().to_string()] {
        assert!(sentences[0].contains(word), "{word:?} is not in: {}", sentences[0]);
    }
}

#[test]
fn each_policy_follows_when_the_one_before_has_had_its_time() {
    require!(AnyKvm);
    let (backend, _image, mut rig) = bereft("wait:1:pause:2:reset:2:stop");
    rig.check_witness();
    atoll_tests::wait_for("the machine to pause", || is_paused(&rig).then_some(()));
    assert!(stands_still(&rig), "the guest runs on");
    atoll_tests::wait_for("the guest to reset its disk", || (rig.resets(1) == 1).then_some(()));
    rig.check_witness();
    let log = rig.vmm.stderr();
    for what in ["the vCPUs are stopped for 2 s", "the device needs a reset for 2 s"] {
        assert!(log.contains(&format!("disk1 (blk) has no back-end: {what}")), "{log}");
    }
    assert_stopped(&backend, &mut rig);
}

#[test]
fn a_policy_in_time_starts_again_with_the_next_loss() {
    require!(AnyKvm);
    let (mut backend, _image, mut rig) = bereft("wait:2:stop");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(1));
        backend.restart();
        rig.wait_for_answers(1);
        backend.kill();
    }
    assert_stopped(&backend, &mut rig);
}
