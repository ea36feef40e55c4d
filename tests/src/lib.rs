//! The harness of the end-to-end tests: guests, backends, networks and images that a test holds as
//! values, and that leave nothing behind when it drops them.
//!
//! A test reads as launch, wait to boot, run, assert:
//!
//! ```no_run
//! use atoll_tests::guest::Guest;
//!
//! let mut guest = Guest::builder().cpus(4).boot();
//! assert_eq!(guest.check("nproc"), "4");
//! guest.power_off();
//! ```
//!
//! What goes wrong panics at once, at the line of the test that asked for it; a guest then prints
//! what its VMM, its serial port and its console said last. No test asserts on time: every wait has
//! the one generous [`PATIENCE`], because in the lab a guest is 20 to 50 times slower.

#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "a harness tells its test what went wrong by panicking"
)]

use std::time::Duration;

pub mod artifacts;
pub mod atoll;
pub mod backend;
pub mod bare_console;
pub mod bare_guest;
pub mod console;
pub mod fake_backend;
pub mod guest;
pub mod image;
pub mod load;
mod machine_code;
pub mod network;
pub mod payload;
pub mod peer;
pub mod process;
pub mod procfs;
pub mod program;
pub mod qemu;
pub mod requirement;
pub mod scratch;
pub mod shell;
pub mod terminal;

/// How long a harness waits for anything before it calls the test failed.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Asks `probe` again and again until it has an answer.
///
/// # Panics
/// When there is none within [`PATIENCE`]; `what` names what was waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(std::time::Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
