//! Consoles: what is typed is read, what is written is seen.

use atoll_tests::PATIENCE;
use atoll_tests::console::Console;
use atoll_tests::guest::Guest;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::StockKvm;
use atoll_tests::scratch::Scratch;
use atoll_tests::wait_for;

#[test]
fn a_console_carries_text_both_ways_and_survives_its_driver() {
    require!(StockKvm);
    let scratch = Scratch::new();
    let socket = scratch.join("hvc1");
    let mut guest = Guest::builder().console(&format!("socket={}", socket.display())).boot();
    let mut console = wait_for("the second console", || Console::connect(&socket));
    let backends = guest.backends();

    for round in 0..2 {
        guest.check("stty -F /dev/hvc1 raw -echo");

        // Typed here, read there, and more than one buffer's worth of it.
        let typed: String = (0..2000).map(|line| format!("line {line}\n")).collect();
        guest.check(&format!("head -c {} < /dev/hvc1 > /tmp/typed & sleep 1", typed.len()));
        console.type_text(&typed);
        guest.check("wait");
        assert_eq!(guest.check("cat /tmp/typed"), typed.trim(), "round {round}");

        // Written there, seen here.
        let from = console.position();
        guest.check("cat /tmp/typed > /dev/hvc1");
        console
            .wait_for(from, PATIENCE, |heard| heard.contains(&typed).then_some(()))
            .expect("the guest's text on the console");

        guest.rebind("$(ls -d /sys/class/virtio-ports/* | tail -n 1)/device");
    }
    assert_eq!(guest.backends(), backends, "a backend lives on through a reset");
    guest.power_off();
}
