//! A stock guest's devices, whose processes die, hang, come late and are replaced: the guest loses
//! nothing.
//!
//! `ATOLL_KILLS` has more kills than a run of all tests has time for.

mod disk;
mod peers;
mod streams;

use std::time::Duration;

use atoll_tests::artifacts;
use atoll_tests::atoll::Builder;
use atoll_tests::backend::Backend;
use atoll_tests::guest::Guest;
use atoll_tests::load;

/// A number from the environment, or what is usual.
fn kills(usual: u32) -> u32 {
    std::env::var("ATOLL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// A guest with Debian's tools on its first disk.
fn with_tools() -> Builder {
    let tools = load::tools(&artifacts::get("root.ext4"));
    Guest::builder().memory("384M").option("--disk", &tools)
}

/// Kills `backend` and starts it again, `count` times, each after a while.
#[track_caller]
fn kill_again_and_again(backend: &mut Backend, count: u32) {
    for round in 0..count {
        // No two rounds alike, and all the same in each run.
        let pause = |factor: u32| Duration::from_millis(u64::from(round * factor % 400));
        std::thread::sleep(Duration::from_millis(100) + pause(137));
        backend.kill();
        std::thread::sleep(pause(59));
        backend.restart();
    }
}

/// The guest's kernel has nothing to say about its devices.
#[track_caller]
fn check_no_complaint(guest: &mut Guest) {
    assert_eq!(load::complaints(guest), "");
}
