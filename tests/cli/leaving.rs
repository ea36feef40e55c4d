//! `atoll console` left while the console prints. The console is a socket of the test's own, which
//! prints without a pause: no guest is as fast as that.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;

use atoll_tests::scratch::Scratch;
use atoll_tests::terminal::Terminal;
use atoll_tests::{program, wait_for};

/// What is printed again and again. A prime, so that what is lost or doubled is no whole number of them.
const PERIOD: usize = 65_521;

/// The bytes of one period, which differ by place.
fn period() -> Vec<u8> {
    (0..PERIOD).map(|at| (at.wrapping_mul(31) ^ (at >> 8)) as u8).collect()
}

#[test]
fn what_the_console_has_sent_by_then_is_shown_and_no_more_is_taken() {
    let scratch = Scratch::new();
    let place = scratch.join("console");
    let listener = UnixListener::bind(&place).expect("listen");
    listener.set_nonblocking(true).expect("do not block");
    let terminal = Terminal::new(80, 25);
    let mut command = Command::new(program::ours("atoll"));
    let mut seated = terminal.run(command.arg("console").arg("--attach").arg(&place));
    let (mut stream, _unnamed) = wait_for("somebody attached", || listener.accept().ok());
    stream.set_nonblocking(false).expect("block");
    wait_for("raw mode", || terminal.is_raw().then_some(()));

    let printing = thread::spawn(move || {
        let (period, mut sent) = (period(), 0_usize);
        // Until it is told that nobody wants more.
        while let Ok(count) = stream.write(period.split_at(sent % PERIOD).1) {
            sent += count;
        }
        sent
    });
    wait_for("output", || (terminal.shown().len() > 1 << 20).then_some(()));
    terminal.press(b"\x1dq");
    assert!(seated.wait().success(), "{}", seated.stderr());
    let sent = printing.join().expect("the console printed");
    let shown = || terminal.shown().len();
    // It is the terminal's to show by now, which may take a moment; too much would be seen as well.
    wait_for("all that was sent", || (shown() >= sent).then_some(()));
    assert_eq!(shown(), sent);
    let (shown, period) = (terminal.shown(), period());
    assert!(shown.chunks(PERIOD).all(|piece| period.starts_with(piece)), "what is shown differs");
}
